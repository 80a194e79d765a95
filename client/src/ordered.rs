//! Work on a bounded number of threads, with the results in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The most threads that are used, however many the machine could run.
const MAX_THREADS: usize = 8;

/// How often `tick` is called while nothing is finished.
const TICK: Duration = Duration::from_secs(1);

/// Does `work` for every item, on as many threads as the machine runs at once, and gives the results to `take` in the order
/// of the items, each with its number; and nothing now and then, to show progress. After an error of `take` no further work
/// is begun, and what is under way is told to stop by its flag.
pub(crate) fn in_order<T: Sync, R: Send, E>(
    items: &[T],
    work: impl Fn(&T, &AtomicBool) -> R + Sync,
    mut take: impl FnMut(Option<(usize, R)>) -> Result<(), E>,
) -> Result<(), E> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(items.len());
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let send = send.clone();
            let (next, stop, work) = (&next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    if send.send((index, work(item, stop))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut expected = 0;
        let mut collect = || loop {
            match receive.recv_timeout(TICK) {
                Ok((index, result)) => {
                    early.insert(index, result);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Some(result) = early.remove(&expected) {
                take(Some((expected, result)))?;
                expected += 1;
            }
            take(None)?;
        };
        let result = collect();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let items: Vec<u32> = (0..200).collect();
        let mut taken = Vec::new();
        let result: Result<(), ()> = in_order(
            &items,
            |item, _| item * 2,
            |result| {
                taken.extend(result);
                Ok(())
            },
        );
        assert_eq!(result, Ok(()));
        let expected: Vec<(usize, u32)> = items.iter().map(|item| (*item as usize, item * 2)).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn an_error_ends_the_work() {
        let items: Vec<u32> = (0..1_000_000).collect();
        let begun = AtomicUsize::new(0);
        let result = in_order(
            &items,
            |item, _| {
                begun.fetch_add(1, Ordering::Relaxed);
                *item
            },
            |result| if result.is_some_and(|(_, item)| item == 5) { Err("five") } else { Ok(()) },
        );
        assert_eq!(result, Err("five"));
        assert!(begun.load(Ordering::Relaxed) >= 6);
    }

    #[test]
    fn nothing_to_do_is_nothing_done() {
        let result: Result<(), ()> = in_order(&[], |(): &(), _| (), |_| Err(()));
        assert_eq!(result, Ok(()));
    }
}
