//! The table of runs: adding one is adding an entry.

use std::time::Duration;

use crate::fault::Fault;
use crate::lane::{SOURCES, Source, TARGETS, Target};
use crate::proxy::Trouble;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub name: &'static str,
    pub about: &'static str,
    pub pairs: Pairs,
    /// In turns, from one that the seed chooses.
    pub faults: &'static [Fault],
    /// How long a fault lasts that does not end by itself, in milliseconds: in turns. Longer ones only in the long form.
    pub hold_ms: &'static [u64],
    /// How long the short form goes on hitting.
    pub seconds: u64,
    /// Messages a second of each lane.
    pub rate: u32,
    pub options: Options,
}

/// Lanes of a run.
#[derive(Debug, Clone, Copy)]
pub enum Pairs {
    /// Every source with every target; in the short form every source once, each with a target that the seed chooses, so
    /// that every target has its turn.
    Every,
    These(&'static [(Source, Target)]),
}

/// What is unusual about a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub gateways: usize,
    /// PostgreSQL instead of SQLite.
    pub shared_store: bool,
    /// The gateway reaches the brokers through a proxy.
    pub proxied: bool,
    pub ordered: bool,
    pub targets: usize,
    pub poison_every: u64,
    /// Redis fsyncs once a second.
    pub everysec: bool,
    /// Redis may lose what it confirmed so shortly before it was killed.
    pub excused: Duration,
    pub small_disk: bool,
    /// No dead letter is left in the end: they are redriven.
    pub redriven: bool,
    /// The build that acknowledges early: messages must be lost.
    pub control: bool,
}

const PLAIN: Options = Options {
    gateways: 1,
    shared_store: false,
    proxied: false,
    ordered: false,
    targets: 1,
    poison_every: 0,
    everysec: false,
    excused: Duration::ZERO,
    small_disk: false,
    redriven: false,
    control: false,
};

const BROKERS: Pairs = Pairs::These(&[
    (Source::RabbitMq, Target::Redis),
    (Source::Redis, Target::RabbitMq),
    (Source::HttpAccepted, Target::RabbitMq),
    (Source::HttpDelivered, Target::Redis),
]);
const RABBITMQ: Pairs = Pairs::These(&[
    (Source::RabbitMq, Target::Http),
    (Source::HttpAccepted, Target::RabbitMq),
    (Source::RabbitMq, Target::RabbitMq),
]);
const REDIS: Pairs = Pairs::These(&[
    (Source::Redis, Target::Http),
    (Source::HttpAccepted, Target::Redis),
    (Source::Redis, Target::Redis),
]);

/// All runs. Those of hostile plugins, of a tenant that floods and of a plugin swap belong here as soon as there are
/// tenants.
pub const RUNS: &[Run] = &[
    Run {
        name: "gateway-kill",
        about: "SIGKILL of the gateway every few seconds",
        pairs: Pairs::Every,
        faults: &[Fault::KillGateway],
        hold_ms: &[0],
        seconds: 14,
        rate: 40,
        options: PLAIN,
    },
    Run {
        name: "gateway-kill-ordered",
        about: "the same with an order by key",
        pairs: Pairs::These(&[
            (Source::RabbitMq, Target::Redis),
            (Source::Redis, Target::Http),
            (Source::Queue, Target::Http),
        ]),
        faults: &[Fault::KillGateway],
        hold_ms: &[0],
        seconds: 10,
        rate: 60,
        options: Options { ordered: true, ..PLAIN },
    },
    Run {
        name: "gateway-pause",
        about: "SIGSTOP of the gateway",
        pairs: BROKERS,
        faults: &[Fault::PauseGateway],
        hold_ms: &[5_000, 30_000, 120_000],
        seconds: 8,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "rabbitmq-kill",
        about: "SIGKILL of RabbitMQ",
        pairs: RABBITMQ,
        faults: &[Fault::KillRabbitMq],
        hold_ms: &[1_000],
        seconds: 8,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "rabbitmq-pause",
        about: "SIGSTOP of RabbitMQ",
        pairs: RABBITMQ,
        faults: &[Fault::PauseRabbitMq],
        hold_ms: &[5_000, 30_000, 120_000],
        seconds: 8,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "rabbitmq-alarm",
        about: "RabbitMQ's memory alarm: publishers are blocked",
        pairs: RABBITMQ,
        faults: &[Fault::RabbitMqAlarm],
        hold_ms: &[4_000, 30_000],
        seconds: 6,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "redis-kill",
        about: "SIGKILL of Redis that fsyncs always",
        pairs: REDIS,
        faults: &[Fault::KillRedis],
        hold_ms: &[1_000],
        seconds: 8,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "redis-kill-everysec",
        about: "SIGKILL of Redis that fsyncs every second; what it confirmed in the 2 s before is excused",
        pairs: Pairs::These(&[(Source::Redis, Target::Http), (Source::HttpDelivered, Target::Redis)]),
        faults: &[Fault::KillRedis],
        hold_ms: &[1_000],
        seconds: 8,
        rate: 80,
        options: Options { everysec: true, excused: Duration::from_secs(2), ..PLAIN },
    },
    Run {
        name: "redis-pause",
        about: "SIGSTOP of Redis",
        pairs: REDIS,
        faults: &[Fault::PauseRedis],
        hold_ms: &[5_000, 30_000, 120_000],
        seconds: 8,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "postgresql-kill",
        about: "SIGKILL of the PostgreSQL that keeps the store",
        pairs: Pairs::These(&[
            (Source::HttpAccepted, Target::Http),
            (Source::Queue, Target::Http),
            (Source::RabbitMq, Target::Http),
        ]),
        faults: &[Fault::KillPostgres],
        hold_ms: &[1_000],
        seconds: 8,
        rate: 60,
        options: Options { shared_store: true, ..PLAIN },
    },
    Run {
        name: "connections",
        about: "connections to the brokers reset, cut mid-frame, stalled and delayed",
        pairs: BROKERS,
        faults: &[
            Fault::Connections(Trouble::Reset),
            Fault::Connections(Trouble::Cut),
            Fault::Connections(Trouble::Stall),
            Fault::Connections(Trouble::Delay(Duration::from_millis(150))),
        ],
        hold_ms: &[2_500, 30_000],
        seconds: 14,
        rate: 50,
        options: Options { proxied: true, ..PLAIN },
    },
    Run {
        name: "one-of-ten",
        about: "one of ten targets slow, then hung; the other nine go on meanwhile",
        pairs: Pairs::These(&[(Source::RabbitMq, Target::Http)]),
        faults: &[Fault::SlowTarget, Fault::HungTarget],
        hold_ms: &[5_000, 30_000],
        seconds: 10,
        rate: 80,
        options: Options { targets: 10, ..PLAIN },
    },
    Run {
        name: "poison",
        about: "1 % of the messages are no JSON, and the gateway is killed",
        pairs: Pairs::These(&[
            (Source::HttpDelivered, Target::Redis),
            (Source::RabbitMq, Target::Http),
            (Source::Redis, Target::Http),
        ]),
        faults: &[Fault::KillGateway],
        hold_ms: &[0],
        seconds: 8,
        rate: 60,
        options: Options { poison_every: 100, ..PLAIN },
    },
    Run {
        name: "bad-clients",
        about: "10,000 idle connections, slow headers and bodies, oversized bodies and compression bombs",
        pairs: Pairs::These(&[(Source::HttpAccepted, Target::Redis), (Source::RabbitMq, Target::Redis)]),
        faults: &[Fault::BadClients],
        hold_ms: &[4_000, 30_000],
        seconds: 6,
        rate: 80,
        options: PLAIN,
    },
    Run {
        name: "redrive-kill",
        about: "SIGKILL of the gateway in the middle of a redrive",
        pairs: Pairs::These(&[(Source::HttpAccepted, Target::Http)]),
        faults: &[Fault::KillWhileRedriving],
        hold_ms: &[0],
        seconds: 8,
        rate: 100,
        options: Options { redriven: true, ..PLAIN },
    },
    Run {
        name: "reload",
        about: "another configuration every 2 s, all pipelines replaced",
        pairs: BROKERS,
        faults: &[Fault::Reload],
        hold_ms: &[0],
        seconds: 10,
        rate: 60,
        options: PLAIN,
    },
    Run {
        name: "two-gateways",
        about: "two gateways on one PostgreSQL, one of them killed or stopped for longer than its lease",
        pairs: Pairs::These(&[
            (Source::HttpAccepted, Target::Http),
            (Source::Queue, Target::Redis),
            (Source::RabbitMq, Target::Http),
        ]),
        faults: &[Fault::KillGateway, Fault::PauseGateway],
        hold_ms: &[12_000],
        seconds: 12,
        rate: 50,
        options: Options { gateways: 2, shared_store: true, ..PLAIN },
    },
    Run {
        name: "full-disk",
        about: "the volume of the gateway's data is full",
        pairs: Pairs::These(&[
            (Source::HttpAccepted, Target::Http),
            (Source::RabbitMq, Target::Http),
            (Source::RabbitMq, Target::File),
        ]),
        faults: &[Fault::FullDisk],
        hold_ms: &[3_000, 30_000],
        seconds: 6,
        rate: 60,
        options: Options { small_disk: true, ..PLAIN },
    },
    Run {
        name: "control",
        about: "a build that acknowledges before it delivers: the oracle must find messages lost",
        pairs: Pairs::These(&[(Source::RabbitMq, Target::Http), (Source::Redis, Target::Http)]),
        faults: &[Fault::KillGateway],
        hold_ms: &[0],
        seconds: 8,
        rate: 100,
        options: Options { control: true, ..PLAIN },
    },
];

impl Run {
    /// The lanes of a form with this seed.
    pub fn pairs(&self, seed: u64, long: bool) -> Vec<(Source, Target)> {
        match self.pairs {
            Pairs::These(pairs) => pairs.to_vec(),
            Pairs::Every if long => SOURCES.iter().flat_map(|from| TARGETS.iter().map(|to| (*from, *to))).collect(),
            Pairs::Every => {
                let target = |index: usize| TARGETS[(index + seed as usize) % TARGETS.len()];
                SOURCES.iter().enumerate().map(|(index, from)| (*from, target(index))).collect()
            }
        }
    }
}
