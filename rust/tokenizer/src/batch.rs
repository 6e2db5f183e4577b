//! Many texts at once, on several threads.

use crate::TokenizerError;
use crate::tokenizer::Tokenizer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Less text than this a thread is not worth starting one.
const BYTES_A_THREAD: usize = 1 << 17;

/// Texts taken at a time by a thread.
const CHUNK: usize = 16;

impl Tokenizer {
    /// The ids of each text, in order; `num_threads` at most, `None` for as many as there are
    /// cores. The result does not depend on it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; that of the earliest text that fails.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        add_special_tokens: bool,
        num_threads: Option<usize>,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let num_threads = threads_for(texts, num_threads);
        if num_threads <= 1 {
            return texts
                .iter()
                .map(|t| self.encode(t.as_ref(), add_special_tokens))
                .collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                let Some(chunk) = texts.get(start..texts.len().min(start + CHUNK)) else {
                    break;
                };
                if chunk.is_empty() {
                    break;
                }
                let ids: Vec<_> = chunk
                    .iter()
                    .map(|t| self.encode(t.as_ref(), add_special_tokens))
                    .collect();
                done.push((start, ids));
            }
            done
        };
        // Threads are made anew each time, so that nothing is left over in a forked child.
        let mut chunks = std::thread::scope(|scope| {
            // Fewer threads than asked for are slower, not wrong: this one works too.
            let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..num_threads).filter_map(start).collect();
            let mut chunks = work();
            for other in others {
                match other.join() {
                    Ok(more) => chunks.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            chunks
        });
        chunks.sort_unstable_by_key(|(start, _)| *start);
        chunks.into_iter().flat_map(|(_, ids)| ids).collect()
    }

    /// As [`Self::encode_batch`] without special tokens, flat: all ids, and the offsets
    /// `[0, n_0, n_0 + n_1, ...]` between which each text's ids lie.
    ///
    /// # Errors
    /// As [`Self::encode_batch`].
    pub fn encode_ragged<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        num_threads: Option<usize>,
    ) -> Result<(Vec<u32>, Vec<i64>), TokenizerError> {
        let mut offsets = Vec::with_capacity(texts.len() + 1);
        offsets.push(0);
        let mut flat = Vec::new();
        if threads_for(texts, num_threads) <= 1 {
            self.with_scratch(|scratch| {
                for text in texts {
                    self.encode_into(text.as_ref(), false, scratch, &mut flat)?;
                    offsets.push(flat.len() as i64);
                }
                Ok(())
            })?;
            return Ok((flat, offsets));
        }
        for ids in self.encode_batch(texts, false, num_threads)? {
            flat.extend(ids);
            offsets.push(flat.len() as i64);
        }
        Ok((flat, offsets))
    }
}

fn threads_for<T: AsRef<str>>(texts: &[T], asked: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let bytes: usize = texts.iter().map(|t| t.as_ref().len()).sum();
    asked
        .unwrap_or_else(cores)
        .min(bytes / BYTES_A_THREAD + 1)
        .min(texts.len())
        .max(1)
}
