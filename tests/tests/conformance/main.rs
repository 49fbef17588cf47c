//! One suite for every connector, through the real gateway: what it promises does not depend on the system at its ends.

mod file;
mod header_list;
mod http;
mod rabbitmq;
mod redis;
mod sample;
mod suite;
mod system;

/// The whole suite for one system.
macro_rules! conformance {
    ($name:ident, $system:ty) => {
        mod $name {
            use anyhow::Result;

            type System = $system;

            #[tokio::test(flavor = "multi_thread")]
            async fn one_in_flight_keeps_the_order() -> Result<()> {
                crate::suite::one_in_flight_keeps_the_order::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn order_by_key_keeps_the_order_of_each_key() -> Result<()> {
                crate::suite::order_by_key_keeps_the_order_of_each_key::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn headers_and_bodies_arrive_byte_for_byte() -> Result<()> {
                crate::suite::headers_and_bodies_arrive_byte_for_byte::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn bodies_of_one_mebibyte_arrive() -> Result<()> {
                crate::suite::bodies_of_one_mebibyte_arrive::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn ten_thousand_messages_arrive_once_each() -> Result<()> {
                crate::suite::ten_thousand_messages_arrive_once_each::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn nothing_is_lost_across_a_reconnect() -> Result<()> {
                crate::suite::nothing_is_lost_across_a_reconnect::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_unroutable_message_is_a_dead_letter() -> Result<()> {
                crate::suite::an_unroutable_message_is_a_dead_letter::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_poison_message_stops_nothing() -> Result<()> {
                crate::suite::a_poison_message_stops_nothing::<System>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_drained_gateway_loses_and_repeats_nothing() -> Result<()> {
                crate::suite::a_drained_gateway_loses_and_repeats_nothing::<System>().await
            }
        }
    };
}

conformance!(rabbitmq_to_rabbitmq, crate::rabbitmq::RabbitMqSystem);
conformance!(redis_to_redis, crate::redis::RedisSystem);
conformance!(http_to_http, crate::http::HttpSystem);
conformance!(file_to_file, crate::file::FileSystem);
