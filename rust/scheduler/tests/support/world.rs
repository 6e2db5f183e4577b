//! A fake model over real memory: an SSM slot holds the hash of the tokens it was fed, a KV cell
//! the token written and that hash. Whoever reads another's history, or a stale one, is found out.

use std::collections::BTreeMap;

use falcon_scheduler::vote::replay;
use falcon_scheduler::{Event, EventKind, FinishReason, Limits, Plan, Scheduler, Tally};

use super::naive::{Given, NaiveTrace, answer_of, draw, mix, outcome, run_trace};

/// The scheduler under test, its twin that must do the same, and the fake device.
pub(crate) struct World {
    pub(crate) limits: Limits,
    pub(crate) scheduler: Scheduler,
    twin: Scheduler,
    kv: Vec<(u32, u64)>,
    slots: Vec<u64>,
    pub(crate) given: BTreeMap<u64, Given>,
    pub(crate) aborted: Vec<u64>,
    pub(crate) reasons: BTreeMap<(u64, u32), FinishReason>,
    unanswered: Vec<(u64, u32)>,
    ended: Vec<u64>,
    final_lens: BTreeMap<(u64, u32), usize>,
    pub(crate) coverage: Coverage,
}

/// How often a history met what it should meet, by name.
pub(crate) type Coverage = BTreeMap<&'static str, u64>;

/// A value no token or state has: freed or never written memory.
const POISON: u64 = 0xDEAD_BEEF_DEAD_BEEF;

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let scheduler = Scheduler::new(limits).expect("good limits");
        Self {
            twin: scheduler.clone(),
            scheduler,
            kv: vec![(u32::MAX, POISON); (limits.num_blocks * limits.block_size) as usize],
            slots: vec![POISON; limits.num_slots as usize],
            limits,
            given: BTreeMap::new(),
            aborted: Vec::new(),
            reasons: BTreeMap::new(),
            unanswered: Vec::new(),
            ended: Vec::new(),
            final_lens: BTreeMap::new(),
            coverage: Coverage::new(),
        }
    }

    /// Add a request; one that is refused must leave no trace of itself.
    pub(crate) fn add(&mut self, given: Given) {
        let id = self.given.len() as u64 * 3 + 1;
        let add = |scheduler: &mut Scheduler| {
            let Given {
                prompt,
                num_traces,
                max_tokens,
                policy,
            } = given.clone();
            scheduler.add_request(id, prompt, num_traces, max_tokens, policy)
        };
        let longest = given.prompt.len() + given.max_tokens;
        let fits = longest <= self.limits.max_model_len as usize
            && (longest - 1).div_ceil(self.limits.block_size as usize)
                <= self.limits.num_blocks as usize;
        let before = (!fits).then(|| format!("{:?}", self.scheduler));
        let (ours, theirs) = (add(&mut self.scheduler), add(&mut self.twin));
        assert_eq!(ours, theirs);
        assert_eq!(ours.is_ok(), fits, "{ours:?}");
        if let Some(before) = before {
            assert_eq!(before, format!("{:?}", self.scheduler));
        } else {
            self.given.insert(id, given);
        }
    }

    /// One step; false when nothing is left to run.
    pub(crate) fn step(&mut self) -> bool {
        let Some(plan) = self.plan() else {
            return false;
        };
        let drawn = self.forward(&plan);
        self.commit(&plan, &drawn);
        true
    }

    fn commit(&mut self, plan: &Plan, drawn: &[(u32, f32, u8)]) {
        let tokens: Vec<u32> = drawn.iter().map(|(token, _, _)| *token).collect();
        let confidences: Vec<f32> = drawn.iter().map(|(_, confidence, _)| *confidence).collect();
        let flags: Vec<u8> = drawn.iter().map(|(_, _, flags)| *flags).collect();
        // Refused calls change nothing: the twin, which does not get them, stays equal.
        let longer = [&tokens[..], &[0]].concat();
        assert!(
            self.scheduler
                .commit(plan.id, &longer, &confidences, &flags)
                .is_err()
        );
        assert!(
            self.scheduler
                .commit(plan.id + 1, &tokens, &confidences, &flags)
                .is_err()
        );
        assert!(self.scheduler.schedule().is_err());
        let events = self
            .scheduler
            .commit(plan.id, &tokens, &confidences, &flags)
            .expect("commit");
        assert_eq!(
            events,
            self.twin
                .commit(plan.id, &tokens, &confidences, &flags)
                .expect("same")
        );
        assert!(
            self.scheduler
                .commit(plan.id, &tokens, &confidences, &flags)
                .is_err()
        );
        self.take(events);
    }

    fn plan(&mut self) -> Option<Plan> {
        let has_unfinished = self.scheduler.has_unfinished();
        let plan = self.scheduler.schedule().expect("no plan in flight");
        assert_eq!(plan, self.twin.schedule().expect("no plan in flight"));
        assert_eq!(plan.is_some(), has_unfinished);
        self.scheduler.audit().expect("after schedule");
        plan
    }

    /// A step that fails midway: all it was to write is poison now.
    pub(crate) fn fail(&mut self) {
        let Some(plan) = self.plan() else { return };
        self.forward(&plan);
        for &slot in &plan.state_slots {
            self.slots[slot as usize] = POISON;
        }
        for &[_, slot] in &plan.slot_copies {
            self.slots[slot as usize] = POISON;
        }
        for &cell in &plan.slot_mapping {
            self.kv[cell as usize] = (u32::MAX, POISON);
        }
        self.scheduler.discard(plan.id).expect("discard");
        self.twin.discard(plan.id).expect("discard");
        self.scheduler.audit().expect("after discard");
    }

    /// Plan a step, abort a trace while it runs, then commit.
    pub(crate) fn step_and_abort(&mut self, pick: usize) {
        let Some(plan) = self.plan() else { return };
        let drawn = self.forward(&plan);
        self.abort(pick, pick.is_multiple_of(2));
        self.commit(&plan, &drawn);
    }

    pub(crate) fn abort(&mut self, pick: usize, whole: bool) {
        let Some((&id, given)) = self.given.iter().nth(pick % self.given.len().max(1)) else {
            return;
        };
        let trace = (!whole).then_some((pick / 7) as u32 % given.num_traces);
        self.aborted.push(id);
        let events = self.scheduler.abort(id, trace).expect("a known trace");
        assert_eq!(events, self.twin.abort(id, trace).expect("a known trace"));
        self.take(events);
    }

    /// Answer one of the traces that wait for it; false when none does.
    pub(crate) fn answer(&mut self, pick: usize) -> bool {
        if self.unanswered.is_empty() {
            return false;
        }
        let (id, trace) = self.unanswered.swap_remove(pick % self.unanswered.len());
        let (output, _) = self
            .scheduler
            .trace_output(id, trace)
            .expect("a known trace");
        let class = answer_of(output);
        let events = self
            .scheduler
            .set_answer(id, trace, class)
            .expect("it waits for it");
        assert_eq!(
            events,
            self.twin.set_answer(id, trace, class).expect("the same")
        );
        assert!(self.scheduler.set_answer(id, trace, class).is_err());
        self.take(events);
        true
    }

    fn take(&mut self, events: Vec<Event>) {
        self.scheduler.audit().expect("after a call");
        for event in events {
            match (event.kind, event.trace_index, event.reason) {
                (EventKind::Finished, Some(trace), Some(reason)) => {
                    let before = self.reasons.insert((event.request_id, trace), reason);
                    assert_eq!(before, None, "a trace ends once");
                    self.count(reason.name(), 1);
                    let output = self.scheduler.trace_output(event.request_id, trace);
                    let len = output.expect("a known trace").0.len();
                    self.final_lens.insert((event.request_id, trace), len);
                    let complete = matches!(reason, FinishReason::Stop | FinishReason::Length);
                    if complete && self.given[&event.request_id].policy.is_some() {
                        self.unanswered.push((event.request_id, trace));
                    }
                }
                (EventKind::RequestFinished, None, None) => self.ended.push(event.request_id),
                (EventKind::Started | EventKind::Threshold, _, None) => {}
                _ => panic!("odd event {event:?}"),
            }
        }
    }

    /// Run the plan on the fake device; one draw a sampled row.
    fn forward(&mut self, plan: &Plan) -> Vec<(u32, f32, u8)> {
        let size = self.limits.block_size as usize;
        self.check_shape(plan);
        self.count("step", 1);
        self.count("block copied", plan.block_copies.len() as u64);
        self.count("slot copied", plan.slot_copies.len() as u64);
        let mixed = plan.cu_seqlens[1] == 1 && plan.token_ids.len() > plan.seq_lens.len();
        self.count("decode and prefill in one step", u64::from(mixed));
        for &[from, to] in &plan.block_copies {
            let (from, to) = (from as usize * size, to as usize * size);
            self.kv.copy_within(from..from + size, to);
        }
        for &[from, to] in &plan.slot_copies {
            self.slots[to as usize] = self.slots[from as usize];
        }
        let mut states = Vec::new();
        for (s, bounds) in plan.cu_seqlens.windows(2).enumerate() {
            let slot = plan.state_slots[s] as usize;
            let mut state = if plan.has_initial_state[s] {
                self.slots[slot]
            } else {
                0
            };
            for t in bounds[0] as usize..bounds[1] as usize {
                state = mix(state, plan.token_ids[t] as u64);
                self.kv[plan.slot_mapping[t] as usize] = (plan.token_ids[t], state);
                states.push((s, state));
            }
            self.slots[slot] = state;
        }
        (0..plan.sample_rows.len())
            .map(|r| {
                let (s, state) = states[plan.sample_rows[r] as usize];
                let (id, trace) = (plan.sample_request_ids[r], plan.sample_traces[r]);
                self.check_history(plan, s, id, trace);
                assert_eq!(plan.sample_positions[r], plan.seq_lens[s] as i64);
                draw(state, trace, plan.sample_positions[r])
            })
            .collect()
    }

    /// The cells that a sampled row attends to are its own prompt and outputs, and so is its state.
    fn check_history(&self, plan: &Plan, s: usize, id: u64, trace: u32) {
        let size = self.limits.block_size as usize;
        let output = self
            .scheduler
            .trace_output(id, trace)
            .expect("a known trace")
            .0;
        let history = [&self.given[&id].prompt, output].concat();
        assert_eq!(history.len(), plan.seq_lens[s] as usize);
        let mut state = 0;
        for (position, &token) in history.iter().enumerate() {
            let block = plan.block_tables[s * plan.max_blocks + position / size] as usize;
            state = mix(state, token as u64);
            assert_eq!(
                self.kv[block * size + position % size],
                (token, state),
                "at {position}"
            );
        }
        assert_eq!(self.slots[plan.state_slots[s] as usize], state);
    }

    fn check_shape(&self, plan: &Plan) {
        let (tokens, seqs) = (plan.token_ids.len(), plan.seq_lens.len());
        assert!(tokens <= self.limits.max_num_batched_tokens as usize && tokens > 0);
        assert!(seqs <= self.limits.max_num_seqs as usize);
        assert_eq!(plan.block_tables.len(), seqs * plan.max_blocks);
        let lens: Vec<i32> = plan.cu_seqlens.windows(2).map(|b| b[1] - b[0]).collect();
        assert!(
            lens.is_sorted_by_key(|len| *len > 1),
            "decodes first: {lens:?}"
        );
        let mut cells = plan.slot_mapping.clone();
        cells.sort_unstable();
        cells.dedup();
        assert_eq!(cells.len(), tokens, "a cell is written twice");
        for copies in [&plan.block_copies, &plan.slot_copies] {
            assert!(
                copies
                    .iter()
                    .all(|[from, _]| copies.iter().all(|[_, to]| from != to))
            );
        }
        let sampled: Vec<i64> = plan.sample_rows.clone();
        for (s, len) in lens.iter().enumerate() {
            let start = plan.seq_lens[s] - len;
            assert_eq!(plan.has_initial_state[s], start > 0);
            let first = plan.cu_seqlens[s] as usize;
            for j in 0..*len as usize {
                assert_eq!(plan.positions[first + j], start as i64 + j as i64);
            }
            let is_end = sampled.contains(&(plan.cu_seqlens[s + 1] as i64 - 1));
            let on_grid = (plan.seq_lens[s] as u32).is_multiple_of(self.limits.chunk_size);
            // A prompt computed again draws nothing; its end is checked by the forks from it.
            assert!(is_end || on_grid || self.is_some_prompt_end(plan.seq_lens[s]));
        }
    }

    fn is_some_prompt_end(&self, len: i32) -> bool {
        self.given
            .values()
            .any(|given| given.prompt.len() == len as usize)
    }

    fn count(&mut self, what: &'static str, times: u64) {
        *self.coverage.entry(what).or_default() += times;
    }

    /// Run to the end, answering at random; everything must end, and end as the naive account says.
    pub(crate) fn finish(mut self, mut pick: usize) -> Coverage {
        let mut num_steps = 0;
        while self.step() {
            num_steps += 1;
            assert!(num_steps < 20_000, "somebody waits for ever");
            pick = mix(pick as u64, num_steps) as usize;
            if pick.is_multiple_of(3) {
                self.answer(pick >> 8);
            }
        }
        while self.answer(pick) {}
        self.ended.sort_unstable();
        let ids: Vec<u64> = self.given.keys().copied().collect();
        assert_eq!(self.ended, ids, "every request ends once");
        for (&(id, trace), &len) in &self.final_lens {
            let output = self
                .scheduler
                .trace_output(id, trace)
                .expect("a known trace")
                .0;
            assert_eq!(output.len(), len, "nothing is added to an ended trace");
        }
        let mut coverage = std::mem::take(&mut self.coverage);
        for (&id, given) in &self.given {
            if !self.aborted.contains(&id) {
                self.compare(id, given, &mut coverage);
            }
        }
        self.coverage = coverage;
        for &id in &ids {
            self.scheduler.release(id).expect("it has ended");
        }
        self.scheduler.clear_prefix_cache();
        self.scheduler.audit().expect("at the end");
        let stats = self.scheduler.stats();
        assert_eq!(
            (
                stats.num_blocks_used,
                stats.num_slots_used,
                stats.num_running
            ),
            (0, 0, 0)
        );
        self.count("prefix token reused", stats.num_cached_tokens);
        let given = ids.iter().map(|id| &self.given[id]);
        let prompts: usize = given.map(|given| given.prompt.len()).sum();
        let again = stats
            .num_prompt_tokens_computed
            .saturating_sub(prompts as u64);
        self.count("prompt token computed again", again);
        self.count("preemption", stats.num_preemptions);
        self.coverage
    }

    fn compare(&self, id: u64, given: &Given, coverage: &mut Coverage) {
        let naive = outcome(given);
        for (index, expected) in naive.traces.iter().enumerate() {
            let trace = index as u32;
            let (tokens, confidences) = self.scheduler.trace_output(id, trace).expect("known");
            let reason = self.reasons[&(id, trace)];
            assert!(
                expected.tokens.starts_with(tokens),
                "request {id} trace {trace}"
            );
            assert!(expected.confidences.starts_with(confidences));
            let is_cut = matches!(reason, FinishReason::Length | FinishReason::Consensus);
            if naive.last.is_none_or(|last| index <= last) || !is_cut {
                assert_eq!(
                    (reason, tokens),
                    (expected.reason, &expected.tokens[..]),
                    "{trace}"
                );
            }
        }
        let Some(policy) = &given.policy else {
            return;
        };
        if let Some(total) = policy.total_tokens {
            self.check_bill(id, given, total, coverage);
        }
        *coverage.entry("tally compared").or_default() += 1;
        let by_total = naive.last.is_some() && naive.consensus.is_none();
        *coverage.entry("cut by total_tokens").or_default() += u64::from(by_total);
        *coverage.entry("one voice is no consensus").or_default() += u64::from(naive.one_voice);
        let tally = self.scheduler.tally(id).expect("it has a policy");
        assert_eq!(tally.threshold.map(round), naive.threshold.map(round));
        assert_eq!(
            tally.consensus.map(|(last, _)| last as usize),
            naive.consensus
        );
        assert_eq!(tally.last_voter.map(|last| last as usize), naive.last);
        // By their logarithms: a power takes weights far from one.
        let rounded = |weights: &[Option<f64>]| -> Vec<Option<i64>> {
            let logarithm = |weight: &Option<f64>| weight.map(|weight| round(weight.ln()));
            weights.iter().map(logarithm).collect()
        };
        assert_eq!(rounded(&tally.weights), rounded(&naive.weights));
        compare_replay(given, &tally, coverage);
    }
}

impl World {
    /// `total_tokens` in trace order bounds what all traces draw together: what runs side by side
    /// when the total is met may run on to its end, and every trace has its first token.
    fn check_bill(&self, id: u64, given: &Given, total: u64, coverage: &mut Coverage) {
        let lens = (0..given.num_traces).map(|trace| {
            self.scheduler
                .trace_output(id, trace)
                .expect("known")
                .0
                .len()
        });
        let bill = lens.sum::<usize>() as u64;
        let side_by_side = given.num_traces.min(self.limits.max_num_seqs) as usize;
        let beyond = side_by_side * given.max_tokens + given.num_traces as usize;
        assert!(bill < total + beyond as u64, "{bill} tokens of {total}");
        *coverage.entry("bill beyond total_tokens").or_default() += u64::from(bill > total);
    }
}

/// The policy replayed over the traces run in full says what the scheduler decided.
fn compare_replay(given: &Given, tally: &Tally, coverage: &mut Coverage) {
    let policy = given.policy.as_ref().expect("it has a policy");
    let full: Vec<NaiveTrace> = (0..given.num_traces)
        .map(|trace| run_trace(given, trace, None))
        .collect();
    if full.iter().any(|trace| trace.reason == FinishReason::Error) {
        return; // a recorded trace is one that ended by itself
    }
    let recorded: Vec<_> = full
        .iter()
        .map(|trace| (&trace.confidences[..], answer_of(&trace.tokens)))
        .collect();
    let (replayed, _) = replay(policy, &recorded).expect("finite and long enough");
    assert_eq!(&replayed, tally);
    *coverage.entry("replay compared").or_default() += 1;
}

/// Equal up to rounding; the fake confidences are eighths, so nothing lies on the edge.
fn round(value: f64) -> i64 {
    (value * 1e6).round() as i64
}
