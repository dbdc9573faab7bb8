//! Random ids: of views whose beacon had none, and of tallies. The id identifies a record that reached the log twice.

use std::cell::RefCell;

/// Ids per call of the operating system's random generator.
const AT_ONCE: usize = 64;

thread_local! {
    static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// 64 random bits, never 0.
pub fn draw() -> u64 {
    DRAWN.with_borrow_mut(|drawn| {
        loop {
            match drawn.pop() {
                Some(id) if id != 0 => return id,
                Some(_) => {}
                None => fill(drawn),
            }
        }
    })
}

fn fill(drawn: &mut Vec<u64>) {
    let mut bytes = [0; AT_ONCE * 8];
    // Without randomness there is no key either, and no beacon was accepted.
    getrandom::fill(&mut bytes).expect("the operating system's generator");
    drawn.extend(bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)));
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_do_not_repeat() {
        let ids: std::collections::HashSet<u64> = (0..100_000).map(|_| super::draw()).collect();
        assert_eq!(ids.len(), 100_000);
    }
}
