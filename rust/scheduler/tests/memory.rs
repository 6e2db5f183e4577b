//! Who gives memory back, and who is served first: directed cases.
#![forbid(unsafe_code)]

use falcon_scheduler::{FinishReason, Limits, Plan, Scheduler};

const ROOMY: Limits = Limits {
    num_blocks: 100,
    block_size: 4,
    num_slots: 10,
    max_num_seqs: 8,
    max_num_batched_tokens: 32,
    chunk_size: 8,
    max_model_len: 100,
    enable_prefix_caching: false,
};

fn scheduler(limits: Limits, requests: &[(usize, u32, usize)]) -> Scheduler {
    let mut scheduler = Scheduler::new(limits).expect("good limits");
    for (id, &(prompt_len, num_traces, max_tokens)) in requests.iter().enumerate() {
        let prompt = vec![id as u32; prompt_len];
        scheduler
            .add_request(id as u64, prompt, num_traces, max_tokens, None)
            .expect("it fits");
    }
    scheduler
}

/// One step; what it computed, as (request, trace) of the sampled rows.
fn step(scheduler: &mut Scheduler) -> (Plan, Vec<(u64, u32)>) {
    let plan = scheduler
        .schedule()
        .expect("no plan in flight")
        .expect("work is left");
    let rows = plan.sample_rows.len();
    scheduler
        .commit(plan.id, &vec![5; rows], &vec![1.0; rows], &vec![0; rows])
        .expect("one entry a row");
    scheduler.audit().expect("sound");
    let ids = plan.sample_request_ids.iter().copied();
    let sampled = ids.zip(plan.sample_traces.iter().copied()).collect();
    (plan, sampled)
}

fn run_out(scheduler: &mut Scheduler) -> usize {
    let mut num_steps = 0;
    while scheduler.has_unfinished() {
        step(scheduler);
        num_steps += 1;
        assert!(num_steps < 1000, "somebody waits for ever");
    }
    num_steps
}

#[test]
fn prefill_is_cut_on_the_absolute_grid() {
    let limits = Limits {
        max_num_batched_tokens: 14,
        ..ROOMY
    };
    let mut scheduler = scheduler(limits, &[(30, 1, 5)]);
    let ends: Vec<i32> = (0..4).map(|_| step(&mut scheduler).0.seq_lens[0]).collect();
    assert_eq!(ends, [8, 16, 30, 31]);
}

#[test]
fn decodes_come_before_prefill_in_one_batch() {
    let mut scheduler = scheduler(ROOMY, &[(6, 2, 20), (40, 1, 5)]);
    let (first, _) = step(&mut scheduler);
    // The second prompt gets what the first leaves, cut on the grid.
    assert_eq!(
        (first.cu_seqlens, first.seq_lens),
        (vec![0, 6, 30], vec![6, 24])
    );
    let (second, sampled) = step(&mut scheduler);
    assert_eq!(second.cu_seqlens, [0, 1, 2, 18]);
    assert_eq!(second.seq_lens, [7, 7, 40]);
    assert_eq!(sampled, [(0, 0), (0, 1), (1, 0)]);
}

#[test]
fn an_idle_owner_goes_before_a_running_trace() {
    // Prompt of 6: one full block, one partial. Two of three traces run (two rows a step), the
    // owner waits for the third: 1 shared + 3 partial blocks, 2 blocks left for growth.
    let limits = Limits {
        num_blocks: 6,
        max_num_seqs: 2,
        ..ROOMY
    };
    let mut scheduler = scheduler(limits, &[(6, 3, 14)]);
    step(&mut scheduler);
    for _ in 0..3 {
        assert_eq!(step(&mut scheduler).1, [(0, 0), (0, 1)]);
    }
    assert_eq!(scheduler.stats().num_blocks_used, 6);
    for _ in 0..3 {
        assert_eq!(step(&mut scheduler).1.len(), 2);
    }
    // Each grows again: one takes the evicted owner's block, the other is preempted.
    assert_eq!(step(&mut scheduler).1, [(0, 0)]);
    assert_eq!(scheduler.stats().num_preemptions, 1);
    assert_eq!(scheduler.stats().num_prompt_tokens_computed, 6);
    run_out(&mut scheduler);
}

#[test]
fn a_preempted_trace_resumes_from_the_owner() {
    // Prompt of 8: the owner has no block of its own, so it is not evicted for one.
    let limits = Limits {
        num_blocks: 6,
        max_num_seqs: 2,
        ..ROOMY
    };
    let mut scheduler = scheduler(limits, &[(8, 4, 13)]);
    while scheduler.trace_output(0, 1).expect("known").0.len() < 13 {
        step(&mut scheduler);
    }
    assert_eq!(scheduler.stats().num_preemptions, 1);
    assert_eq!(scheduler.stats().num_prompt_tokens_computed, 8);
    run_out(&mut scheduler);
}

#[test]
fn one_slot_serves_every_trace() {
    let limits = Limits {
        num_slots: 1,
        ..ROOMY
    };
    let mut scheduler = scheduler(limits, &[(9, 3, 4), (5, 2, 4)]);
    run_out(&mut scheduler);
    assert_eq!(scheduler.stats().num_generated_tokens, 3 * 4 + 2 * 4);
}

#[test]
fn arrivals_are_served_in_order() {
    let limits = Limits {
        max_num_seqs: 2,
        num_slots: 3,
        ..ROOMY
    };
    let mut scheduler = scheduler(limits, &[(5, 4, 6), (5, 1, 6), (5, 1, 6)]);
    let mut order = Vec::new();
    while scheduler.has_unfinished() {
        for (request, trace) in step(&mut scheduler).1 {
            if !order.contains(&(request, trace)) {
                order.push((request, trace));
            }
        }
    }
    let ids: Vec<u64> = order.iter().map(|(request, _)| *request).collect();
    assert!(ids.is_sorted(), "{order:?}");
}

#[test]
fn an_abort_is_said_once_and_frees() {
    let mut scheduler = scheduler(ROOMY, &[(9, 2, 10)]);
    step(&mut scheduler);
    step(&mut scheduler);
    let events = scheduler.abort(0, None).expect("known");
    let reasons: Vec<_> = events.iter().map(|event| event.reason).collect();
    assert_eq!(
        reasons,
        [Some(FinishReason::Abort), Some(FinishReason::Abort), None]
    );
    assert_eq!(scheduler.stats().num_blocks_used, 0);
    assert_eq!(scheduler.abort(0, None).expect("known"), []);
    assert!(scheduler.schedule().expect("no plan in flight").is_none());
}
