//! Pagination of lists.

use std::str::FromStr;

use crate::{
    api::{
        response::ApiError,
        types::{MAX_ITEMS, Page, PageRequest},
    },
    model::Problem,
};

/// Returns the number of items that a page may have.
///
/// # Errors
/// If the limit is 0 or above [`MAX_ITEMS`].
pub(super) fn checked_limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(100);
    if (1..=MAX_ITEMS).contains(&limit) {
        Ok(limit)
    } else {
        let detail = format!("limit is {limit}: it must be 1 to {MAX_ITEMS}");
        Err(Problem::invalid("limit", detail))
    }
}

impl PageRequest {
    /// Returns the page of a list that is sorted by its keys.
    pub(super) fn paginate<T, K: Ord + ToString + FromStr, V>(
        &self,
        list: impl Iterator<Item = T>,
        key: impl Fn(&T) -> K,
        mut view: impl FnMut(T) -> Result<V, ApiError>,
    ) -> Result<Page<V>, ApiError> {
        let limit = checked_limit(self.limit)?;
        let after = match &self.after {
            None => None,
            Some(text) => Some(text.parse::<K>().map_err(|_| {
                let detail =
                    "after is not a position in this list: use `next` of the previous page";
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
