//! A small thread pool: the caller works too, idle workers spin briefly and then sleep.
//!
//! A decode step makes a few hundred short parallel regions, a few microseconds apart; waking a
//! sleeping thread for each costs more than the work. So workers spin for [`SPIN`] after a
//! region before they sleep. Tasks are claimed from a counter, so a core that is busy elsewhere
//! takes fewer. Which thread runs a task never changes a result.

use crate::denormals::Flushed;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

/// How long a worker looks for the next region before it sleeps.
const SPIN: Duration = Duration::from_micros(60);

/// The function of a region; lives on the caller's stack until every worker has left it.
type Task = *const (dyn Fn(usize) + Sync);

struct Region {
    task: Task,
    num_tasks: usize,
}
// SAFETY: the pointee is Sync and outlives the region (see `Pool::run`).
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

struct Shared {
    /// The current region; None between regions.
    region: RwLock<Option<Region>>,
    /// Counts regions; workers watch it.
    epoch: AtomicU64,
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Shared {
    fn claim_all(&self, region: &Region) {
        // SAFETY: the region's caller waits for the write lock, so the task is alive.
        let task = unsafe { &*region.task };
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= region.num_tasks {
                return;
            }
            task(index);
        }
    }

    fn work(&self) {
        let _flushed = Flushed::new();
        let mut seen = 0;
        loop {
            seen = self.wait(seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let region = self.region.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(region) = region.as_ref()
                && catch_unwind(AssertUnwindSafe(|| self.claim_all(region))).is_err()
            {
                self.panicked.store(true, Ordering::Release);
            }
        }
    }

    /// Until the epoch differs from `seen`; its new value.
    fn wait(&self, seen: u64) -> u64 {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                let epoch = self.epoch.load(Ordering::SeqCst);
                if epoch != seen {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.epoch.load(Ordering::SeqCst) == seen {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.epoch.load(Ordering::SeqCst)
    }

    fn announce(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            drop(guard);
            self.wake.notify_all();
        }
    }
}

struct Pool {
    shared: Arc<Shared>,
    /// Threads asked for; fewer may have started.
    num_threads: usize,
    /// The process that made the workers; a forked child has none and makes its own.
    process: u32,
}

impl Pool {
    fn new(num_threads: usize) -> Self {
        let shared = Arc::new(Shared {
            region: RwLock::new(None),
            epoch: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicU32::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        for index in 1..num_threads {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("falcon-kernels-{index}"));
            // Fewer workers than asked for is slower, not wrong.
            drop(builder.spawn(move || shared.work()));
        }
        Self {
            shared,
            num_threads,
            process: std::process::id(),
        }
    }

    fn run(&self, num_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &self.shared;
        // SAFETY: only the lifetime is changed; the write lock below waits for every reader.
        let task: Task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Task>(task) };
        shared.next.store(0, Ordering::Relaxed);
        *shared
            .region
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Region { task, num_tasks });
        shared.announce();
        let own = catch_unwind(AssertUnwindSafe(|| {
            shared.claim_all(&Region { task, num_tasks });
        }));
        // Workers hold the read lock while they run tasks, so nobody is inside after this line.
        self.wait_for_workers();
        let panicked = shared.panicked.swap(false, Ordering::AcqRel);
        if let Err(payload) = own {
            std::panic::resume_unwind(payload);
        }
        assert!(!panicked, "a kernel task panicked");
    }

    fn wait_for_workers(&self) {
        loop {
            match self.shared.region.try_write() {
                Ok(mut region) => return *region = None,
                Err(TryLockError::Poisoned(error)) => return *error.into_inner() = None,
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.announce();
    }
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
static NUM_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Threads that kernels use, the calling one included; at least 1. Takes effect at the next call.
pub fn set_num_threads(num_threads: usize) {
    NUM_THREADS.store(num_threads.clamp(1, 256), Ordering::Relaxed);
}

/// Threads that kernels use: the number set, else the number of cores this process may use.
pub fn num_threads() -> usize {
    match NUM_THREADS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// The pool, unless another thread's region is on it. A panic in a task does it no harm.
fn idle_pool() -> Option<MutexGuard<'static, Option<Pool>>> {
    match POOL.try_lock() {
        Ok(slot) => Some(slot),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Run `task(0) .. task(num_tasks - 1)`, each once, on the pool; returns when all are done.
///
/// When the pool is busy with another thread's region, the caller does all tasks itself.
/// Denormals are zero meanwhile, whatever the caller's mode.
///
/// # Panics
/// Panics when a task panics.
pub(crate) fn parallel_for(num_tasks: usize, task: impl Fn(usize) + Sync) {
    let _flushed = Flushed::new();
    let threads = if num_tasks > 1 { num_threads() } else { 1 };
    if threads > 1
        && let Some(mut slot) = idle_pool()
    {
        let process = std::process::id();
        if let Some(pool) = slot.as_ref()
            && pool.process != process
        {
            // After a fork: the workers do not exist here, and locks they held never open.
            std::mem::forget(slot.take());
        }
        if slot.as_ref().is_none_or(|pool| pool.num_threads != threads) {
            *slot = Some(Pool::new(threads));
        }
        if let Some(pool) = slot.as_ref() {
            return pool.run(num_tasks, &task);
        }
    }
    for index in 0..num_tasks {
        task(index);
    }
}

/// A pointer that tasks may share because each writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<T>(pub(crate) *mut T);
// SAFETY: users write disjoint parts, argued at each use.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// The address of element `index`; a method, so that closures capture the wrapper.
    ///
    /// # Safety
    /// `index` must lie inside the allocation.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: passed on to the caller.
        unsafe { self.0.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::{POOL, Pool, idle_pool, num_threads, parallel_for};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for round in 0..200 {
                let counts: Vec<AtomicUsize> = (0..round).map(|_| AtomicUsize::new(0)).collect();
                pool.run(round, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let run = || pool.run(8, &|i| assert!(i != 5, "task 5"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn a_panic_leaves_the_pool_of_all_in_use() {
        let run = || parallel_for(8, |i| assert!(i != 5, "task 5"));
        while !POOL.is_poisoned() && num_threads() > 1 {
            // Again, as long as another test has the pool.
            assert!(std::panic::catch_unwind(run).is_err());
        }
        while idle_pool().is_none() {
            std::thread::yield_now();
        }
        let count = AtomicUsize::new(0);
        parallel_for(8, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn nested_regions_do_not_deadlock() {
        let count = AtomicUsize::new(0);
        parallel_for(4, |_| {
            parallel_for(4, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.load(Ordering::Relaxed), 16);
    }
}
