//! Bindings of `falcon-scheduler`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use falcon_scheduler as core;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::error::{ConfigError, RequestError};

/// Add this crate's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ConfidenceTracker>()?;
    module.add_class::<DeepConfPolicy>()?;
    module.add_class::<Event>()?;
    module.add_class::<Plan>()?;
    module.add_class::<Scheduler>()?;
    module.add_class::<Tally>()?;
    module.add_function(wrap_pyfunction!(confidence_threshold, module)?)?;
    module.add_function(wrap_pyfunction!(replay, module)?)?;
    module.add_function(wrap_pyfunction!(vote, module)?)
}

/// Output token ids and their confidences.
type TraceOutput<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

fn raise(error: core::SchedulerError) -> PyErr {
    match error {
        core::SchedulerError::Config(message) => ConfigError::new_err(message),
        core::SchedulerError::Request(message) | core::SchedulerError::Protocol(message) => {
            RequestError::new_err(message)
        }
    }
}

/// The elements of a C-contiguous array.
fn slice<'a, T: numpy::Element>(
    array: &'a PyReadonlyArray1<'_, T>,
    name: &str,
) -> PyResult<&'a [T]> {
    array.as_slice().map_err(|_| {
        RequestError::new_err(format!(
            "{name} is not contiguous; pass numpy.ascontiguousarray of it"
        ))
    })
}

#[pyclass(frozen, eq, from_py_object, module = "falcon_h1r._rust")]
#[derive(Clone, PartialEq)]
struct DeepConfPolicy(core::DeepConfPolicy);

#[pymethods]
impl DeepConfPolicy {
    #[new]
    #[pyo3(signature = (*, mode, warmup, keep, window, vote, consensus=None, exp_weights=false, power=1.0, total_tokens=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only fields of a record")]
    fn new(
        mode: &str,
        warmup: u32,
        keep: f64,
        window: usize,
        vote: &str,
        consensus: Option<f64>,
        exp_weights: bool,
        power: f64,
        total_tokens: Option<u64>,
    ) -> PyResult<Self> {
        let mode = core::Mode::parse(mode).map_err(raise)?;
        let measure = core::Measure::parse(vote).map_err(raise)?;
        let policy = core::DeepConfPolicy {
            mode,
            warmup,
            keep,
            window,
            measure,
            consensus,
            exp_weights,
            power,
            total_tokens,
        };
        policy.checked().map(Self).map_err(raise)
    }

    #[getter]
    fn mode(&self) -> &'static str {
        self.0.mode.name()
    }

    #[getter]
    fn warmup(&self) -> u32 {
        self.0.warmup
    }

    #[getter]
    fn keep(&self) -> f64 {
        self.0.keep
    }

    #[getter]
    fn window(&self) -> usize {
        self.0.window
    }

    #[getter]
    fn vote(&self) -> &'static str {
        self.0.measure.name()
    }

    #[getter]
    fn consensus(&self) -> Option<f64> {
        self.0.consensus
    }

    #[getter]
    fn exp_weights(&self) -> bool {
        self.0.exp_weights
    }

    #[getter]
    fn power(&self) -> f64 {
        self.0.power
    }

    #[getter]
    fn total_tokens(&self) -> Option<u64> {
        self.0.total_tokens
    }
}

#[pyclass(frozen, get_all, module = "falcon_h1r._rust")]
struct Event {
    request_id: u64,
    trace_index: Option<u32>,
    kind: &'static str,
    reason: Option<&'static str>,
    value: Option<f64>,
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        let trace = self
            .trace_index
            .map_or("None".into(), |index| index.to_string());
        let reason = self
            .reason
            .map_or("None".into(), |reason| format!("{reason:?}"));
        let value = self
            .value
            .map_or("None".into(), |value| format!("{value:?}"));
        format!(
            "Event(request_id={}, trace_index={trace}, kind={:?}, reason={reason}, value={value})",
            self.request_id, self.kind
        )
    }
}

fn to_events(events: Vec<core::Event>) -> Vec<Event> {
    let convert = |event: core::Event| Event {
        request_id: event.request_id,
        trace_index: event.trace_index,
        kind: event.kind.name(),
        reason: event.reason.map(core::FinishReason::name),
        value: event.value,
    };
    events.into_iter().map(convert).collect()
}

/// One flat batch; every array is moved, not copied, from the core's plan.
#[pyclass(frozen, get_all, module = "falcon_h1r._rust")]
struct Plan {
    id: u64,
    token_ids: Py<PyArray1<u32>>,
    positions: Py<PyArray1<i64>>,
    cu_seqlens: Py<PyArray1<i32>>,
    seq_lens: Py<PyArray1<i32>>,
    slot_mapping: Py<PyArray1<i64>>,
    block_tables: Py<PyArray2<i32>>,
    state_slots: Py<PyArray1<i64>>,
    has_initial_state: Py<PyArray1<bool>>,
    block_copies: Py<PyArray2<i64>>,
    slot_copies: Py<PyArray2<i64>>,
    sample_rows: Py<PyArray1<i64>>,
    sample_request_ids: Py<PyArray1<u64>>,
    sample_traces: Py<PyArray1<u32>>,
    sample_positions: Py<PyArray1<i64>>,
    sample_output_lens: Py<PyArray1<i64>>,
}

impl Plan {
    fn new(py: Python<'_>, plan: core::Plan) -> PyResult<Self> {
        let num_seqs = plan.seq_lens.len();
        let pairs = |copies: Vec<[i64; 2]>| {
            let num_copies = copies.len();
            copies
                .into_flattened()
                .into_pyarray(py)
                .reshape([num_copies, 2])
                .map(Bound::unbind)
        };
        let tables = plan.block_tables.into_pyarray(py);
        Ok(Self {
            id: plan.id,
            token_ids: plan.token_ids.into_pyarray(py).unbind(),
            positions: plan.positions.into_pyarray(py).unbind(),
            cu_seqlens: plan.cu_seqlens.into_pyarray(py).unbind(),
            seq_lens: plan.seq_lens.into_pyarray(py).unbind(),
            slot_mapping: plan.slot_mapping.into_pyarray(py).unbind(),
            block_tables: tables.reshape([num_seqs, plan.max_blocks])?.unbind(),
            state_slots: plan.state_slots.into_pyarray(py).unbind(),
            has_initial_state: plan.has_initial_state.into_pyarray(py).unbind(),
            block_copies: pairs(plan.block_copies)?,
            slot_copies: pairs(plan.slot_copies)?,
            sample_rows: plan.sample_rows.into_pyarray(py).unbind(),
            sample_request_ids: plan.sample_request_ids.into_pyarray(py).unbind(),
            sample_traces: plan.sample_traces.into_pyarray(py).unbind(),
            sample_positions: plan.sample_positions.into_pyarray(py).unbind(),
            sample_output_lens: plan.sample_output_lens.into_pyarray(py).unbind(),
        })
    }
}

#[pyclass(frozen, get_all, module = "falcon_h1r._rust")]
struct Tally {
    threshold: Option<f64>,
    last_voter: Option<u32>,
    consensus: Option<(u32, f64)>,
    weights: Vec<Option<f64>>,
    votes: Vec<(u64, f64)>,
    answer_class: Option<u64>,
    majority_class: Option<u64>,
}

impl From<core::Tally> for Tally {
    fn from(tally: core::Tally) -> Self {
        Self {
            threshold: tally.threshold,
            last_voter: tally.last_voter,
            consensus: tally.consensus,
            weights: tally.weights,
            votes: tally.votes,
            answer_class: tally.answer_class,
            majority_class: tally.majority_class,
        }
    }
}

/// The mutex is never held while Python objects are made, so no finalizer can wait for it.
#[pyclass(frozen, module = "falcon_h1r._rust")]
struct Scheduler(Mutex<core::Scheduler>);

impl Scheduler {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, core::Scheduler> {
        self.0
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Scheduler {
    #[new]
    #[pyo3(signature = (*, num_blocks, block_size, num_slots, max_num_seqs, max_num_batched_tokens, chunk_size, max_model_len, enable_prefix_caching=false))]
    fn new(
        num_blocks: u32,
        block_size: u32,
        num_slots: u32,
        max_num_seqs: u32,
        max_num_batched_tokens: u32,
        chunk_size: u32,
        max_model_len: u32,
        enable_prefix_caching: bool,
    ) -> PyResult<Self> {
        let limits = core::Limits {
            num_blocks,
            block_size,
            num_slots,
            max_num_seqs,
            max_num_batched_tokens,
            chunk_size,
            max_model_len,
            enable_prefix_caching,
        };
        let scheduler = core::Scheduler::new(limits).map_err(raise)?;
        Ok(Self(Mutex::new(scheduler)))
    }

    #[pyo3(signature = (request_id, prompt_token_ids, *, num_traces, max_tokens, deepconf=None))]
    fn add_request(
        &self,
        py: Python<'_>,
        request_id: u64,
        prompt_token_ids: PyReadonlyArray1<'_, u32>,
        num_traces: u32,
        max_tokens: usize,
        deepconf: Option<DeepConfPolicy>,
    ) -> PyResult<()> {
        let prompt = slice(&prompt_token_ids, "prompt_token_ids")?.to_vec();
        let policy = deepconf.map(|policy| policy.0);
        let mut scheduler = self.lock(py);
        scheduler
            .add_request(request_id, prompt, num_traces, max_tokens, policy)
            .map_err(raise)
    }

    fn schedule(&self, py: Python<'_>) -> PyResult<Option<Plan>> {
        let plan = self.lock(py).schedule().map_err(raise)?;
        plan.map(|plan| Plan::new(py, plan)).transpose()
    }

    fn commit(
        &self,
        py: Python<'_>,
        plan_id: u64,
        token_ids: PyReadonlyArray1<'_, u32>,
        confidences: PyReadonlyArray1<'_, f32>,
        flags: PyReadonlyArray1<'_, u8>,
    ) -> PyResult<Vec<Event>> {
        let token_ids = slice(&token_ids, "token_ids")?;
        let confidences = slice(&confidences, "confidences")?;
        let flags = slice(&flags, "flags")?;
        let events = self.lock(py).commit(plan_id, token_ids, confidences, flags);
        events.map(to_events).map_err(raise)
    }

    fn discard(&self, py: Python<'_>, plan_id: u64) -> PyResult<()> {
        self.lock(py).discard(plan_id).map_err(raise)
    }

    #[pyo3(signature = (request_id, trace_index, answer_class))]
    fn set_answer(
        &self,
        py: Python<'_>,
        request_id: u64,
        trace_index: u32,
        answer_class: Option<u64>,
    ) -> PyResult<Vec<Event>> {
        let events = self
            .lock(py)
            .set_answer(request_id, trace_index, answer_class);
        events.map(to_events).map_err(raise)
    }

    #[pyo3(signature = (request_id, trace_index=None))]
    fn abort(
        &self,
        py: Python<'_>,
        request_id: u64,
        trace_index: Option<u32>,
    ) -> PyResult<Vec<Event>> {
        let events = self.lock(py).abort(request_id, trace_index);
        events.map(to_events).map_err(raise)
    }

    fn tally(&self, py: Python<'_>, request_id: u64) -> PyResult<Tally> {
        let tally = self.lock(py).tally(request_id);
        tally.map(Tally::from).map_err(raise)
    }

    fn trace_output<'py>(
        &self,
        py: Python<'py>,
        request_id: u64,
        trace_index: u32,
    ) -> PyResult<TraceOutput<'py>> {
        let (token_ids, confidences) = {
            let scheduler = self.lock(py);
            let (ids, values) = scheduler
                .trace_output(request_id, trace_index)
                .map_err(raise)?;
            // The values came as float32, so this is exact.
            (
                ids.to_vec(),
                values.iter().map(|value| *value as f32).collect::<Vec<_>>(),
            )
        };
        Ok((token_ids.into_pyarray(py), confidences.into_pyarray(py)))
    }

    fn release(&self, py: Python<'_>, request_id: u64) -> PyResult<()> {
        self.lock(py).release(request_id).map_err(raise)
    }

    fn clear_prefix_cache(&self, py: Python<'_>) {
        self.lock(py).clear_prefix_cache();
    }

    fn has_unfinished(&self, py: Python<'_>) -> bool {
        self.lock(py).has_unfinished()
    }

    fn stats(&self, py: Python<'_>) -> std::collections::BTreeMap<&'static str, u64> {
        let stats = self.lock(py).stats();
        [
            ("num_steps", stats.num_steps),
            (
                "num_prompt_tokens_computed",
                stats.num_prompt_tokens_computed,
            ),
            ("num_cached_tokens", stats.num_cached_tokens),
            ("num_generated_tokens", stats.num_generated_tokens),
            ("num_preemptions", stats.num_preemptions),
            ("num_blocks", stats.num_blocks),
            ("num_blocks_used", stats.num_blocks_used),
            ("num_slots", stats.num_slots),
            ("num_slots_used", stats.num_slots_used),
            ("num_waiting", stats.num_waiting),
            ("num_running", stats.num_running),
        ]
        .into()
    }
}

#[pyclass(module = "falcon_h1r._rust")]
struct ConfidenceTracker(core::ConfidenceTracker);

#[pymethods]
impl ConfidenceTracker {
    #[new]
    fn new(window: usize) -> PyResult<Self> {
        core::ConfidenceTracker::new(window)
            .map(Self)
            .map_err(raise)
    }

    fn push(&mut self, confidence: f64) -> PyResult<()> {
        self.0.push(confidence).map_err(raise)
    }

    fn extend(&mut self, confidences: PyReadonlyArray1<'_, f64>) -> PyResult<()> {
        self.0
            .extend(slice(&confidences, "confidences")?)
            .map_err(raise)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn window(&self) -> usize {
        self.0.window()
    }

    #[getter]
    fn is_full(&self) -> bool {
        self.0.is_full()
    }

    #[getter]
    fn group(&self) -> Option<f64> {
        self.0.group()
    }

    #[getter]
    fn lowest_group(&self) -> Option<f64> {
        self.0.lowest_group()
    }

    #[getter]
    fn mean(&self) -> Option<f64> {
        self.0.mean()
    }

    fn tail(&self, n: usize) -> PyResult<Option<f64>> {
        self.0.tail(n).map_err(raise)
    }

    fn bottom_groups(&self, q: f64) -> PyResult<Option<f64>> {
        self.0.bottom_groups(q).map_err(raise)
    }

    fn groups<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.0.groups().into_pyarray(py)
    }

    #[pyo3(signature = (vote, exp_weights=false, power=1.0))]
    fn weight(&self, vote: &str, exp_weights: bool, power: f64) -> PyResult<Option<f64>> {
        let measure = core::Measure::parse(vote).map_err(raise)?;
        core::policy::check_power(power).map_err(raise)?;
        Ok(measure
            .of(&self.0)
            .map(|value| measure.weight(value, exp_weights, power)))
    }
}

#[pyfunction]
fn confidence_threshold(
    lowest_groups: PyReadonlyArray1<'_, f64>,
    keep: f64,
) -> PyResult<Option<f64>> {
    core::vote::threshold(slice(&lowest_groups, "lowest_groups")?, keep).map_err(raise)
}

#[pyfunction]
fn vote(
    answer_classes: Vec<Option<u64>>,
    weights: Vec<Option<f64>>,
) -> PyResult<core::vote::Outcome> {
    core::vote::vote(&answer_classes, &weights).map_err(raise)
}

#[pyfunction]
fn replay(
    py: Python<'_>,
    policy: &DeepConfPolicy,
    confidences: Vec<PyReadonlyArray1<'_, f64>>,
    answer_classes: Vec<Option<u64>>,
) -> PyResult<(Tally, Vec<(usize, bool)>)> {
    if confidences.len() != answer_classes.len() {
        return Err(RequestError::new_err(format!(
            "{} traces but {} answer classes are given; give one a trace",
            confidences.len(),
            answer_classes.len()
        )));
    }
    let traces = confidences.iter().zip(answer_classes);
    let traces = traces
        .map(|(values, answer)| Ok((slice(values, "confidences")?, answer)))
        .collect::<PyResult<Vec<_>>>()?;
    let replayed = py.detach(|| core::vote::replay(&policy.0, &traces));
    let (tally, spent) = replayed.map_err(raise)?;
    Ok((tally.into(), spent))
}
