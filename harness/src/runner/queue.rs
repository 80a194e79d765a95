//! The jobs that are still to be done, some of which make others.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use super::lock;

/// A queue for several workers. It is at its end when it is empty and nobody works on what could fill it again.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    jobs: VecDeque<T>,
    /// How many jobs were taken and not yet let go.
    taken: usize,
    closed: bool,
}

/// A job that was taken: dropped, it is done, or its worker is dead.
pub(super) struct Taken<'a, T> {
    pub(super) job: T,
    queue: &'a Queue<T>,
}

impl<T> Queue<T> {
    pub(super) fn new(jobs: impl IntoIterator<Item = T>) -> Self {
        let state = State { jobs: jobs.into_iter().collect(), taken: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next job. Waits while there is none but others may make one; nothing at the end.
    pub(super) fn take(&self) -> Option<Taken<'_, T>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.taken += 1;
                return Some(Taken { job, queue: self });
            }
            if state.taken == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Adds jobs behind all others.
    pub(super) fn extend(&self, jobs: impl IntoIterator<Item = T>) {
        lock(&self.state).jobs.extend(jobs);
        self.changed.notify_all();
    }

    /// Nobody gets a job any more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        lock(&self.queue.state).taken -= 1;
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_come_in_order_and_the_end_comes_when_nobody_can_make_more() {
        let queue = Queue::new([1, 2]);
        let first = queue.take().expect("a job");
        queue.extend([3]);
        drop(first);
        let rest: Vec<i32> = std::iter::from_fn(|| queue.take().map(|taken| taken.job)).collect();
        assert_eq!(rest, [2, 3]);
    }

    #[test]
    fn a_worker_waits_for_what_another_makes() {
        let queue = Queue::new([1]);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = queue.take().expect("a job");
            let second = scope.spawn(|| {
                tell.send(()).expect("somebody listens");
                queue.take().map(|taken| taken.job)
            });
            told.recv().expect("it runs");
            queue.extend([2]);
            assert_eq!(second.join().expect("no panic"), Some(2));
            drop(first);
        });
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_closed_queue_gives_nothing_and_keeps_nobody_waiting() {
        let queue = Queue::new([1, 2]);
        std::thread::scope(|scope| {
            let first = queue.take().expect("a job");
            let second = queue.take().expect("a job");
            let third = scope.spawn(|| queue.take().is_none());
            queue.extend([]);
            queue.close();
            assert!(third.join().expect("no panic"));
            drop((first, second));
        });
        queue.extend([3]);
        assert!(queue.take().is_none());
    }
}
