//! What receipts cost a message on its way, journal and recording: `cargo bench -p sluicegate-store --bench receipts`.
//! A pipeline in memory carries 10,000 messages; divide by that.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluicegate_engine::memory::{MemoryDeadLetters, MemorySource, MemoryTarget};
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::{Assembly, Blueprint, Order, State, TargetPart};
use sluicegate_engine::receipt::Receipts;
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::target_driver::TargetSettings;
use sluicegate_store::receipt::{ReceiptSettings, StoreReceipts};
use sluicegate_store::{Location, Store};
use tokio_util::sync::CancellationToken;

const MESSAGES: u64 = 10_000;
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn assembly(receipts: Option<Arc<dyn Receipts>>) -> Assembly {
    let body = vec![b'x'; 1_024];
    let messages = (0..MESSAGES).map(|_| Message::new("bench", "bench", body.clone()));
    Assembly::new(Blueprint {
        name: "bench".into(),
        config_version: "v".into(),
        source_system: "memory",
        source: Box::new(MemorySource::of(messages)),
        steps: Vec::new(),
        targets: vec![TargetPart {
            name: "out".into(),
            system: "memory",
            target: Box::new(MemoryTarget::default()),
            settings: TargetSettings::default(),
        }],
        retry: RetryPolicy::default(),
        dead_letters: Arc::new(MemoryDeadLetters::default()),
        max_in_flight: 256,
        order: Order::None,
        handler_timeout: None,
        state: State { receipts, ..State::default() },
    })
}

fn receipts(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let opened = runtime.block_on(Store::open(&Location::embedded(folder.path())));
    let store = Arc::new(opened.unwrap_or_else(|error| panic!("{error}")));
    let mut group = criterion.benchmark_group("receipts");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(20);
    for (name, sample) in
        [("none", None), ("sample 0", Some(0.0)), ("sample 0.01", Some(0.01)), ("sample 1", Some(1.0))]
    {
        let kept = sample.map(|sample| {
            let _inside = runtime.enter();
            Arc::new(StoreReceipts::start(Arc::clone(&store), ReceiptSettings { sample, keep: WEEK }))
        });
        group.bench_function(name, |bencher| {
            let fresh = || assembly(kept.clone().map(|kept| kept as Arc<dyn Receipts>));
            let carry = |assembly: Assembly| async move {
                assembly.run(CancellationToken::new(), Duration::from_secs(30)).await
            };
            bencher.to_async(&runtime).iter_batched(fresh, carry, BatchSize::PerIteration);
        });
        if let Some(kept) = kept {
            runtime.block_on(kept.close());
            println!("receipts lost: {}", kept.lost());
        }
    }
    group.finish();
    runtime.block_on(store.close());
}

criterion_group!(benches, receipts);
criterion_main!(benches);
