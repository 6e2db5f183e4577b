//! Random histories against the naive account: law 1, no memory lost or shared by mistake, and
//! everybody ends.
#![forbid(unsafe_code)]

mod support;

use std::cell::RefCell;

use falcon_scheduler::{DeepConfPolicy, Limits, Measure, Mode};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::naive::{Given, mix};
use support::world::{Coverage, World};

#[derive(Debug, Clone)]
enum Op {
    Add(Given),
    Steps(usize),
    Answer(usize),
    Abort(usize, bool),
    StepAndAbort(usize),
    Fail,
}

fn limits() -> impl Strategy<Value = Limits> {
    let memory = (1..40_u32, 1..6_u32, 1..8_u32);
    (memory, 1..7_u32, 1..6_u32, 0..20_u32, any::<bool>()).prop_map(
        |((num_blocks, block_size, num_slots), max_num_seqs, chunk, more, caching)| {
            let chunk_size = if caching {
                block_size * chunk.min(3)
            } else {
                chunk
            };
            Limits {
                num_blocks,
                block_size,
                num_slots,
                max_num_seqs,
                max_num_batched_tokens: max_num_seqs.max(chunk_size) + more,
                chunk_size,
                max_model_len: 60,
                enable_prefix_caching: caching,
            }
        },
    )
}

/// Round shares are met exactly, so that "at least" is told from "more than".
fn consensus() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        Just(Some(0.5)),
        Just(Some(0.75)),
        (0.3..1.0).prop_map(Some)
    ]
}

fn policy() -> impl Strategy<Value = DeepConfPolicy> {
    let power = prop_oneof![Just(1.0), 0.0..30.0];
    let vote = (0..5_usize, any::<bool>(), consensus(), power);
    let shape = (any::<bool>(), 1..8_u32, 0.05..1.0, 1..6_usize);
    (shape, vote, prop::option::of(1..80_u64)).prop_map(
        |(
            (online, warmup, keep, window),
            (measure, exp_weights, consensus, power),
            total_tokens,
        )| {
            let mode = if online { Mode::Online } else { Mode::Offline };
            let measure = Measure::ALL[measure].1;
            let total_tokens = total_tokens.filter(|total| total % 2 == 0);
            DeepConfPolicy {
                mode,
                warmup,
                keep,
                window,
                measure,
                consensus,
                exp_weights,
                power,
                total_tokens,
            }
        },
    )
}

fn given() -> impl Strategy<Value = Given> {
    (
        any::<u64>(),
        1..30_usize,
        1..14_u32,
        1..25_usize,
        prop::option::weighted(0.7, policy()),
    )
        .prop_map(|(seed, prompt_len, num_traces, max_tokens, policy)| {
            // Many prompts begin alike and part at some point.
            let shared = if seed % 4 > 0 { (seed >> 8) % 30 } else { 0 };
            let word = |i: u64| mix(if i < shared { seed % 4 } else { seed }, i) % 1000;
            let prompt = (0..prompt_len as u64).map(|i| word(i) as u32).collect();
            let num_traces = num_traces.max(policy.as_ref().map_or(1, |policy| policy.warmup));
            Given {
                prompt,
                num_traces,
                max_tokens,
                policy,
            }
        })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => given().prop_map(Op::Add),
        12 => (1..12_usize).prop_map(Op::Steps),
        10 => any::<usize>().prop_map(Op::Answer),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, whole)| Op::Abort(pick, whole)),
        1 => any::<usize>().prop_map(Op::StepAndAbort),
        2 => Just(Op::Fail),
    ];
    prop::collection::vec(op, 1..30)
}

const MUST_MEET: [&str; 17] = [
    "abort",
    "block copied",
    "confidence",
    "consensus",
    "cut by total_tokens",
    "decode and prefill in one step",
    "error",
    "length",
    "one voice is no consensus",
    "preemption",
    "prefix token reused",
    "prompt token computed again",
    "replay compared",
    "slot copied",
    "step",
    "stop",
    "tally compared",
];

fn run(num_histories: u32) {
    let met: RefCell<Coverage> = RefCell::default();
    let config = Config {
        cases: num_histories,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&(limits(), ops(), any::<usize>()), |(limits, ops, pick)| {
            let mut world = World::new(limits);
            for op in ops {
                match op {
                    Op::Add(given) => world.add(given),
                    Op::Steps(n) => (0..n).for_each(|_| _ = world.step()),
                    Op::Answer(pick) => _ = world.answer(pick),
                    Op::Abort(pick, whole) => world.abort(pick, whole),
                    Op::StepAndAbort(pick) => world.step_and_abort(pick),
                    Op::Fail => world.fail(),
                }
            }
            for (what, times) in world.finish(pick) {
                *met.borrow_mut().entry(what).or_default() += times;
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    // A run that never preempts, forks or decides a vote has tested nothing.
    for what in MUST_MEET {
        let times = met.borrow().get(what).copied().unwrap_or(0);
        assert!(
            times >= num_histories as u64 / 50,
            "{what}: {times} times; {met:?}"
        );
    }
}

#[test]
fn a_thousand_histories() {
    run(1_000);
}

#[test]
#[ignore = "long; part of `make campaign`"]
fn a_hundred_thousand_histories() {
    run(100_000);
}
