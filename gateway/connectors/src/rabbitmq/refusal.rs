//! What the broker's errors mean: sorted by what to do, in words that say what to try.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};
use sluicegate_engine::failure::Failure;

use super::endpoint::Endpoint;

/// A failure while connecting, declaring or beginning to consume. `doing` continues "… RabbitMQ at host": "connecting",
/// "declaring queue `q`".
pub(super) fn on_connect(error: &Error, doing: &str, endpoint: &Endpoint) -> Failure {
    let text = |hint: &str| format!("{doing}, RabbitMQ at {endpoint}: {}; {hint}", said(error));
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return io(error, doing, endpoint);
    };
    match amqp.kind() {
        AMQPErrorKind::Soft(soft) => match soft {
            AMQPSoftError::PRECONDITIONFAILED => Failure::permanent(text(
                "it exists with other properties than configured: write its real properties into the configuration, take \
                 it as it is with `declare: passive`, or delete it on the broker",
            )),
            AMQPSoftError::ACCESSREFUSED => Failure::permanent(text(
                "check user and password of the url, and the user's permissions on the virtual host (`rabbitmqctl \
                 list_permissions`)",
            )),
            AMQPSoftError::NOTFOUND => Failure::permanent(text(
                "create it on the broker, or let the gateway declare it (`declare: true`, and for an exchange its `kind`)",
            )),
            // Held by a connection that may be half dead: the broker lets go when it notices.
            AMQPSoftError::RESOURCELOCKED => Failure::transient(text(
                "another connection holds it exclusively; it is free once that connection ends",
            )),
            AMQPSoftError::CONTENTTOOLARGE | AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS => {
                Failure::transient(text("the broker's log says more"))
            }
        },
        AMQPErrorKind::Hard(hard) => match hard {
            AMQPHardError::INVALIDPATH | AMQPHardError::NOTALLOWED => Failure::permanent(text(
                "check that the virtual host of the url exists (`rabbitmqctl list_vhosts`) and that the user may use it",
            )),
            AMQPHardError::COMMANDINVALID | AMQPHardError::NOTIMPLEMENTED => Failure::permanent(text(
                "the broker does not know what was asked for: an exchange kind such as x-delayed-message needs its plugin \
                 (`rabbitmq-plugins enable rabbitmq_delayed_message_exchange`)",
            )),
            AMQPHardError::CONNECTIONFORCED
            | AMQPHardError::FRAMEERROR
            | AMQPHardError::SYNTAXERROR
            | AMQPHardError::CHANNELERROR
            | AMQPHardError::UNEXPECTEDFRAME
            | AMQPHardError::RESOURCEERROR
            | AMQPHardError::INTERNALERROR => {
                Failure::disconnected(text("the broker ended the connection; its log says more"))
            }
        },
    }
}

/// A failure of an open connection or channel: whatever it was, only a new connection helps.
pub(super) fn lost(error: &Error, doing: &str, endpoint: &Endpoint) -> Failure {
    Failure::disconnected(format!("{doing}, RabbitMQ at {endpoint}: {}", said(error)))
}

/// The error in the broker's own words where it has any.
pub(super) fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => format!("{} ({})", amqp.get_message(), amqp.get_id()),
        ErrorKind::IOError(io) => io.to_string(),
        ErrorKind::MissingHeartbeatError => "no heartbeat from the broker for too long".to_owned(),
        // The enum is open; the rest are states of lapin with good words of their own.
        _ => error.to_string(),
    }
}

fn io(error: &Error, doing: &str, endpoint: &Endpoint) -> Failure {
    let text = |hint: &str| format!("{doing}, RabbitMQ at {endpoint}: {}; {hint}", said(error));
    match error.kind() {
        ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            Failure::disconnected(text("is the broker running, and is this its port?"))
        }
        ErrorKind::IOError(io) if io.kind() == std::io::ErrorKind::InvalidData => Failure::permanent(text(
            "check the TLS files: `ca_file` must hold the authority that signed the broker's certificate, which must name \
             this host",
        )),
        ErrorKind::InvalidProtocolVersion(_) => {
            Failure::permanent(text("AMQP 0-9-1 is needed: is this the broker's AMQP port?"))
        }
        ErrorKind::ChannelsLimitReached => {
            Failure::permanent(text("lower `concurrency`, or raise `channel_max` of the broker"))
        }
        ErrorKind::AuthProviderError(_) => {
            Failure::permanent(text("check user and password of the url, and its `auth_mechanism`"))
        }
        // The enum is open; what is left are broken connections.
        _ => Failure::disconnected(text("check that the broker is reachable; its log says more")),
    }
}
