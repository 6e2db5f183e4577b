//! KV blocks: fixed-size pages, shared by reference count, handed out from a free list.

/// Index of a KV block.
pub type BlockId = u32;

/// The pool of KV blocks. Invariant: a block is in the free list exactly when its count is 0.
#[derive(Debug, Clone)]
pub struct BlockPool {
    ref_counts: Vec<u32>,
    free: Vec<BlockId>,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks; the lowest ids are handed out first.
    pub fn new(num_blocks: u32) -> Self {
        Self {
            ref_counts: vec![0; num_blocks as usize],
            free: (0..num_blocks).rev().collect(),
        }
    }

    /// Take one block with a count of 1; `None` when none is free.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.ref_counts[block as usize] = 1;
        Some(block)
    }

    /// One more owner of a block that is in use.
    pub fn share(&mut self, block: BlockId) {
        debug_assert!(self.ref_counts[block as usize] > 0, "sharing a free block");
        self.ref_counts[block as usize] += 1;
    }

    /// One owner less; the last one frees the block.
    pub fn release(&mut self, block: BlockId) {
        let count = &mut self.ref_counts[block as usize];
        debug_assert!(*count > 0, "releasing a free block");
        *count -= 1;
        if *count == 0 {
            self.free.push(block);
        }
    }

    /// Number of owners of a block (0: free).
    pub fn ref_count(&self, block: BlockId) -> u32 {
        self.ref_counts[block as usize]
    }

    /// Number of free blocks.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Number of blocks, free or used.
    pub fn num_total(&self) -> usize {
        self.ref_counts.len()
    }
}
