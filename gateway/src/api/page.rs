//! Lists, a page at a time.

use serde::{Deserialize, Serialize};

use crate::{api::response::Refusal, model::Problem};

/// Which page is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageRequest {
    /// How many at the most; 100 where unset.
    limit: Option<usize>,
    /// Those that come after this name.
    after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The most items on a page.
pub const MOST_ITEMS: usize = 1_000;

impl PageRequest {
    /// The page of a list that is in the order of its keys.
    pub(super) fn of<'a, T: 'a, V>(
        &self,
        list: impl Iterator<Item = &'a T>,
        key: impl Fn(&T) -> String,
        view: impl Fn(&'a T) -> Result<V, Refusal>,
    ) -> Result<Page<V>, Refusal> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=MOST_ITEMS).contains(&limit) {
            let detail = format!("limit must be 1 to {MOST_ITEMS}");
            return Err(Problem::invalid("limit", detail).into());
        }
        let after = self.after.as_deref();
        let mut rest = list
            .filter(|item| after.is_none_or(|after| *key(item) > *after))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < limit
            && let Some(item) = rest.next()
        {
            last = Some(key(item));
            items.push(view(item)?);
        }
        Ok(Page {
            items,
            next: last.filter(|_| rest.peek().is_some()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_up_the_list() {
        let list: Vec<String> = ('a'..='g').map(String::from).collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let request = PageRequest {
                limit: Some(3),
                after,
            };
            let page = request
                .of(list.iter(), String::clone, |item| Ok(item.clone()))
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
            none.of(list.iter(), String::clone, |item| Ok(item.clone()))
                .is_err()
        );
    }
}
