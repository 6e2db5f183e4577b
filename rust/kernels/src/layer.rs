//! One layer of Falcon-H1 over packed sequences with caches, in one call.
//!
//! Legend: T packed tokens, D model width, F mlp width, H query heads, K kv heads, P head width,
//! I ssm channels, C conv channels (I + 2 G N), G groups, N state width, W conv width.
//!
//! The kernels and roundings are those of the single operations, in the order of the Python
//! module `model/block.py`, so the bits are the same. What is saved is everything between them,
//! which is as long as the work itself when a step has one token: allocations, checks, calls, and
//! a parallel region for each product.

use crate::attention::{PagedCache, paged_attention};
use crate::batch::Sequences;
use crate::conv::{ConvInputs, causal_conv1d_slots};
use crate::copy::write_rows;
use crate::error::{KernelError, check_size};
use crate::linear::{Epilogue, LinearElement, Product, linear_many};
use crate::rope::rope;
use crate::rows::{Rows, RowsMut};
use crate::rowwise::{
    GatedNorm, add_rows, decay_rate, gated_rms_norm, rms_norm, softplus_dt, swiglu,
};
use crate::scan::{ScanInputs, ssd_scan_slots};
use crate::simd::Element;

/// The widths of a layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerSizes {
    /// D.
    pub width: usize,
    /// F.
    pub hidden: usize,
    /// H.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// P.
    pub head_dim: usize,
    /// Heads of the ssm, each of I / heads channels.
    pub ssm_heads: usize,
    /// I.
    pub d_ssm: usize,
    /// G.
    pub groups: usize,
    /// N.
    pub d_state: usize,
    /// W.
    pub conv_width: usize,
}

/// Alignment of each buffer in the workspace, in bytes.
const ALIGN: usize = 64;

impl LayerSizes {
    /// H P.
    pub fn q_width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// K P.
    pub fn kv_width(&self) -> usize {
        self.kv_heads.saturating_mul(self.head_dim)
    }

    /// G N.
    pub fn group_width(&self) -> usize {
        self.groups.saturating_mul(self.d_state)
    }

    /// C.
    pub fn conv_dim(&self) -> usize {
        self.d_ssm
            .saturating_add(self.group_width().saturating_mul(2))
    }

    /// Columns of the ssm's input projection: z, x, B, C, dt.
    pub fn in_width(&self) -> usize {
        self.d_ssm
            .saturating_add(self.conv_dim())
            .saturating_add(self.ssm_heads)
    }

    /// Bytes of workspace that [`layer`] needs for `tokens` tokens of type T.
    pub fn workspace_bytes<T>(&self, tokens: usize) -> usize {
        let (d, f) = (self.width, self.hidden);
        let (q, kv) = (self.q_width(), self.kv_width());
        let (inner, conv) = (self.d_ssm, self.conv_dim());
        let buffers = [
            d,
            q,
            kv,
            kv,
            self.in_width(),
            q,
            kv,
            q,
            conv,
            inner,
            inner,
            d,
            d,
            f,
            f,
            f,
            d,
        ];
        let bytes =
            |elements: usize, size: usize| elements.saturating_mul(size).saturating_add(ALIGN);
        buffers
            .iter()
            .map(|width| bytes(width.saturating_mul(tokens), size_of::<T>()))
            .chain([tokens, 1, 1, 1].map(|rows| bytes(rows.saturating_mul(self.ssm_heads), 4)))
            .fold(0, usize::saturating_add)
    }
}

/// The numbers of a layer that are not weights.
#[derive(Clone, Copy, Debug)]
pub struct LayerSettings {
    /// Added to the mean of squares in the two norms of width D.
    pub eps: f32,
    /// Factor of attention scores.
    pub attention_scale: f32,
    /// Bounds of dt.
    pub time_step_limit: (f32, f32),
    /// The mixer's norm, where it has one.
    pub norm: GatedNorm,
}

/// A projection without bias.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a, T> {
    /// [out, in].
    pub weight: &'a [T],
    /// One factor, or one a column.
    pub scale: &'a [f32],
}

/// The weights of a layer.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // named and shaped as in the checkpoint
pub struct LayerWeights<'a, T> {
    pub input_norm: &'a [T],
    pub q: Projection<'a, T>,
    pub k: Projection<'a, T>,
    pub v: Projection<'a, T>,
    pub o: Projection<'a, T>,
    pub ssm_in: Projection<'a, T>,
    pub ssm_out: Projection<'a, T>,
    pub conv: &'a [T],
    pub conv_bias: Option<&'a [T]>,
    pub dt_bias: &'a [T],
    pub a_log: &'a [T],
    pub d: &'a [T],
    /// The mixer's norm; None: its output is only gated.
    pub ssm_norm: Option<&'a [T]>,
    pub pre_ff_norm: &'a [T],
    pub gate: Projection<'a, T>,
    pub up: Projection<'a, T>,
    pub down: Projection<'a, T>,
}

/// A layer's memory.
#[derive(Debug)]
pub struct LayerState<'a, T> {
    /// [blocks, `block_size`, K, P].
    pub k_cache: &'a mut [T],
    /// [blocks, `block_size`, K, P].
    pub v_cache: &'a mut [T],
    /// [slots, C, W - 1].
    pub conv: &'a mut [T],
    /// [slots, heads, I / heads, N].
    pub ssm: &'a mut [f32],
}

/// The sequences of a step, and where each finds its past.
#[derive(Clone, Copy, Debug)]
pub struct LayerBatch<'a> {
    /// [T].
    pub positions: &'a [i64],
    /// [P / 2], radians a position.
    pub frequencies: &'a [f32],
    /// [T].
    pub slot_mapping: &'a [i64],
    /// [S, M].
    pub block_tables: &'a [i32],
    /// M.
    pub max_blocks: usize,
    /// Tokens a KV block.
    pub block_size: usize,
    /// [S].
    pub seq_lens: &'a [i32],
    /// Offsets and slots.
    pub sequences: Sequences<'a>,
}

/// Hands out the workspace piece by piece.
struct Arena<'a>(&'a mut [u8]);

impl<'a> Arena<'a> {
    /// `len` elements of unknown content.
    fn take<T: Element>(&mut self, len: usize) -> Result<&'a mut [T], KernelError> {
        let free = std::mem::take(&mut self.0);
        let skip = free.as_ptr().align_offset(ALIGN);
        let bytes = len.saturating_mul(size_of::<T>());
        check_size("workspace", free.len(), skip.saturating_add(bytes))?;
        let (taken, rest) = free[skip..].split_at_mut(bytes);
        self.0 = rest;
        // SAFETY: aligned, `bytes` long, borrowed for 'a; T is f32 or Bf16, any bits are a value.
        Ok(unsafe { std::slice::from_raw_parts_mut(taken.as_mut_ptr().cast(), len) })
    }
}

/// x [T, width] as rows, to be written and read.
struct Buffer<'a, T> {
    data: &'a mut [T],
    tokens: usize,
    width: usize,
}

impl<T: Element> Buffer<'_, T> {
    fn rows(&self) -> Result<Rows<'_, T>, KernelError> {
        self.columns(0, self.width)
    }

    /// Columns `from..from + width`.
    fn columns(&self, from: usize, width: usize) -> Result<Rows<'_, T>, KernelError> {
        let data = self.data.get(from..).unwrap_or(&[]);
        Rows::new("columns", data, self.tokens, width, self.width)
    }

    fn rows_mut(&mut self) -> Result<RowsMut<'_, T>, KernelError> {
        RowsMut::new("buffer", self.data, self.tokens, self.width, self.width)
    }
}

fn product<'a, T>(
    x: Rows<'a, T>,
    projection: &Projection<'a, T>,
    y: RowsMut<'a, T>,
) -> Product<'a, T, T> {
    let epilogue = Epilogue {
        scale: projection.scale,
        bias: None,
    };
    Product {
        x,
        w: projection.weight,
        epilogue,
        y,
    }
}

/// x [T, D] becomes x + attention(norm x) + ssm(norm x), then x + mlp(norm x); the caches advance.
///
/// # Errors
/// [`KernelError`] when a buffer, an offset, a slot or a block does not fit; what earlier kernels
/// of the layer wrote stays written then.
pub fn layer<T: LinearElement>(
    x: &mut RowsMut<'_, T>,
    weights: &LayerWeights<'_, T>,
    sizes: &LayerSizes,
    settings: &LayerSettings,
    batch: &LayerBatch<'_>,
    state: LayerState<'_, T>,
    workspace: &mut [u8],
) -> Result<(), KernelError> {
    let mut layer = Layer {
        weights,
        sizes,
        settings,
        batch,
        tokens: x.len(),
        arena: Arena(workspace),
    };
    let mut normed = layer.buffer(sizes.width)?;
    rms_norm(
        &x.rows(),
        weights.input_norm,
        settings.eps,
        &mut normed.rows_mut()?,
    )?;
    layer.mix(x, &normed, state)?;
    rms_norm(
        &x.rows(),
        weights.pre_ff_norm,
        settings.eps,
        &mut normed.rows_mut()?,
    )?;
    layer.feed_forward(x, &normed)
}

struct Layer<'a, 'w, T> {
    weights: &'a LayerWeights<'a, T>,
    sizes: &'a LayerSizes,
    settings: &'a LayerSettings,
    batch: &'a LayerBatch<'a>,
    tokens: usize,
    arena: Arena<'w>,
}

impl<'w, T: LinearElement> Layer<'_, 'w, T> {
    fn buffer<E: Element>(&mut self, width: usize) -> Result<Buffer<'w, E>, KernelError> {
        let data = self.arena.take(self.tokens.saturating_mul(width))?;
        Ok(Buffer {
            data,
            tokens: self.tokens,
            width,
        })
    }

    /// x += attention(normed) + ssm(normed).
    fn mix(
        &mut self,
        x: &mut RowsMut<'_, T>,
        normed: &Buffer<'_, T>,
        state: LayerState<'_, T>,
    ) -> Result<(), KernelError> {
        let (sizes, weights) = (self.sizes, self.weights);
        let LayerState {
            k_cache,
            v_cache,
            conv,
            ssm,
        } = state;
        let (q_width, kv_width) = (sizes.q_width(), sizes.kv_width());
        let mut q = self.buffer(q_width)?;
        let mut k = self.buffer(kv_width)?;
        let mut v = self.buffer(kv_width)?;
        let mut wide = self.buffer(sizes.in_width())?; // z, x, B, C, dt
        let h = normed.rows()?;
        linear_many([
            product(h, &weights.ssm_in, wide.rows_mut()?),
            product(h, &weights.q, q.rows_mut()?),
            product(h, &weights.k, k.rows_mut()?),
            product(h, &weights.v, v.rows_mut()?),
        ])?;
        let attended = self.attend(&q, &k, &v, k_cache, v_cache)?;
        let scanned = self.scan(&wide, conv, ssm)?;
        let mut from_attention = self.buffer(sizes.width)?;
        let mut from_ssm = self.buffer(sizes.width)?;
        linear_many([
            product(scanned.rows()?, &weights.ssm_out, from_ssm.rows_mut()?),
            product(attended.rows()?, &weights.o, from_attention.rows_mut()?),
        ])?;
        add_rows(x, [from_ssm.rows()?, from_attention.rows()?])
    }

    fn attend(
        &mut self,
        q: &Buffer<'_, T>,
        k: &Buffer<'_, T>,
        v: &Buffer<'_, T>,
        k_cache: &mut [T],
        v_cache: &mut [T],
    ) -> Result<Buffer<'w, T>, KernelError> {
        let (sizes, batch) = (self.sizes, self.batch);
        let mut turned_q = self.buffer(q.width)?;
        let mut turned_k = self.buffer(k.width)?;
        for (from, to) in [(q, &mut turned_q), (k, &mut turned_k)] {
            let to = &mut to.rows_mut()?;
            rope(&from.rows()?, batch.positions, batch.frequencies, to)?;
        }
        write_rows(&turned_k.rows()?, batch.slot_mapping, k_cache)?;
        write_rows(&v.rows()?, batch.slot_mapping, v_cache)?;
        let cache = PagedCache {
            k: k_cache,
            v: v_cache,
            block_size: batch.block_size,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            block_tables: batch.block_tables,
            max_blocks: batch.max_blocks,
        };
        let mut y = self.buffer(q.width)?;
        paged_attention(
            turned_q.rows()?,
            cache,
            batch.sequences.cu_seqlens,
            batch.seq_lens,
            self.settings.attention_scale,
            &mut y.rows_mut()?,
        )?;
        Ok(y)
    }

    /// The ssm between its projections, from `wide`, which holds z, x, B, C and dt.
    fn scan(
        &mut self,
        wide: &Buffer<'_, T>,
        conv_state: &mut [T],
        ssm_state: &mut [f32],
    ) -> Result<Buffer<'w, T>, KernelError> {
        let (sizes, weights, settings) = (self.sizes, self.weights, self.settings);
        let (inner, conv_dim, heads) = (sizes.d_ssm, sizes.conv_dim(), sizes.ssm_heads);
        let mut mixed = self.buffer(conv_dim)?; // x, B, C
        let inputs = ConvInputs {
            x: wide.columns(inner, conv_dim)?,
            weight: weights.conv,
            bias: weights.conv_bias,
            width: sizes.conv_width,
        };
        let sequences = self.batch.sequences;
        causal_conv1d_slots(inputs, sequences, conv_state, &mut mixed.rows_mut()?)?;

        let mut dt = self.buffer::<f32>(heads)?;
        let dt_bias = self.widened(weights.dt_bias)?;
        let raw = wide.columns(inner + conv_dim, heads)?;
        softplus_dt(&raw, dt_bias, settings.time_step_limit, &mut dt.rows_mut()?)?;
        let a = self.arena.take::<f32>(heads)?;
        decay_rate(weights.a_log, a)?;
        let inputs = ScanInputs {
            x: mixed.columns(0, inner)?,
            dt: dt.rows()?,
            a,
            b: mixed.columns(inner, sizes.group_width())?,
            c: mixed.columns(inner + sizes.group_width(), sizes.group_width())?,
            d: self.widened(weights.d)?,
            d_state: sizes.d_state,
        };
        let mut y = self.buffer(inner)?;
        ssd_scan_slots(inputs, sequences, ssm_state, &mut y.rows_mut()?)?;

        let mut gated = self.buffer(inner)?;
        let (z, out) = (wide.columns(0, inner)?, &mut gated.rows_mut()?);
        match weights.ssm_norm {
            Some(weight) => gated_rms_norm(&y.rows()?, &z, weight, settings.norm, out)?,
            None => swiglu(&z, &y.rows()?, out)?,
        }
        Ok(gated)
    }

    /// A weight of a number a head, in f32.
    fn widened(&mut self, weight: &[T]) -> Result<&'w [f32], KernelError> {
        let wide = self.arena.take::<f32>(self.sizes.ssm_heads)?;
        check_size("weight of a head", weight.len(), wide.len())?;
        for (wide, value) in wide.iter_mut().zip(weight) {
            *wide = value.to_f32();
        }
        Ok(wide)
    }

    /// x += mlp(normed).
    fn feed_forward(
        &mut self,
        x: &mut RowsMut<'_, T>,
        normed: &Buffer<'_, T>,
    ) -> Result<(), KernelError> {
        let (sizes, weights) = (self.sizes, self.weights);
        let mut gate = self.buffer(sizes.hidden)?;
        let mut up = self.buffer(sizes.hidden)?;
        let mut gated = self.buffer(sizes.hidden)?;
        let mut down = self.buffer(sizes.width)?;
        linear_many([
            product(normed.rows()?, &weights.gate, gate.rows_mut()?),
            product(normed.rows()?, &weights.up, up.rows_mut()?),
        ])?;
        swiglu(&gate.rows()?, &up.rows()?, &mut gated.rows_mut()?)?;
        linear_many([product(gated.rows()?, &weights.down, down.rows_mut()?)])?;
        add_rows(x, [down.rows()?])
    }
}
