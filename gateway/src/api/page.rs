//! Lists, a page at a time.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{api::response::ApiError, model::Problem};

/// Which page is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    /// How many at the most; 100 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Those that come after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 127)]
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The most items on a page.
pub const MAX_ITEMS: usize = 1_000;

/// How many items are wanted.
///
/// # Errors
/// None, or more than a page has.
pub(super) fn checked_limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(100);
    if (1..=MAX_ITEMS).contains(&limit) {
        Ok(limit)
    } else {
        let detail = format!("limit must be 1 to {MAX_ITEMS}");
        Err(Problem::invalid("limit", detail))
    }
}

impl PageRequest {
    /// The page of a list that is in the order of its keys.
    pub(super) fn paginate<T, K: Ord + ToString + FromStr, V>(
        &self,
        list: impl Iterator<Item = T>,
        key: impl Fn(&T) -> K,
        view: impl Fn(T) -> Result<V, ApiError>,
    ) -> Result<Page<V>, ApiError> {
        let limit = checked_limit(self.limit)?;
        let after = match &self.after {
            None => None,
            Some(text) => Some(text.parse::<K>().map_err(|_| {
                let detail = "after must be the `next` of the page before";
                Problem::invalid("after", detail)
            })?),
        };
        let mut items_after = list
            .skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < limit
            && let Some(item) = items_after.next()
        {
            last = Some(key(&item).to_string());
            items.push(view(item)?);
        }
        Ok(Page {
            items,
            next: last.filter(|_| items_after.peek().is_some()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_concatenate_to_the_list() {
        let list: Vec<String> = ('a'..='g').map(String::from).collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let request = PageRequest {
                limit: Some(3),
                after,
            };
            let page = request
                .paginate(list.iter(), |item| (*item).clone(), |item| Ok(item.clone()))
                .unwrap();
            assert!(page.items.len() <= 3);
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, list);
        let none = PageRequest {
            limit: Some(0),
            after: None,
        };
        assert!(
            none.paginate(list.iter(), |item| (*item).clone(), |item| Ok(item.clone()))
                .is_err()
        );
    }
}
