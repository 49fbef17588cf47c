//! What may be reached, and that nothing else is: with a DNS that says what the test wants.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::client::{self, Settings};
use super::*;

#[test]
fn only_the_public_internet_is_public() {
    for public in [
        "1.1.1.1",
        "93.184.216.34",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ] {
        assert!(is_public(public.parse().expect(public)), "{public}");
    }
    for private in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "3fff::1",
        "5f00::1",
    ] {
        assert!(!is_public(private.parse().expect(private)), "{private}");
    }
}

#[test]
fn an_address_in_a_url_is_judged_however_it_is_written() {
    let reach = Reach::Public { and: vec![parse_network("10.1.0.0/16").expect("a network")] };
    for url in [
        "http://1.1.1.1/",
        "http://10.1.2.3/",
        "https://example.org/",
        "http://[2606:4700::1111]/",
        "http://[::ffff:10.1.0.1]/",
    ] {
        assert_eq!(reach.check(&Url::parse(url).expect(url)), Ok(()), "{url}");
    }
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://10.2.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://user@169.254.169.254/",
        "http://①②⑦.0.0.1/",
    ] {
        assert!(reach.check(&Url::parse(url).expect(url)).is_err(), "{url}");
        assert_eq!(Reach::Anywhere.check(&Url::parse(url).expect(url)), Ok(()));
    }
}

/// A DNS that answers each question with the next of its answers, and then with the last.
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let addresses = |answer: &&[&str]| answer.iter().map(|text| text.parse().expect("an address")).collect();
        Arc::new(Self(Mutex::new(answers.iter().map(addresses).collect())))
    }
}

#[async_trait]
impl Lookup for Scripted {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().expect("not poisoned");
        Ok(if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap_or_default())
    }
}

/// Answers every request on a connection of its own with `answer`; ends with how many there were.
fn receiver(listener: TcpListener, answer: String, requests: Arc<Mutex<u32>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            if read > 0 {
                *requests.lock().expect("not poisoned") += 1;
                drop(stream.write_all(answer.as_bytes()).await);
            }
        }
    })
}

/// 127.0.0.2 stands for a public address here: it is an exception from what is private.
fn reach() -> Reach {
    Reach::Public { and: vec![parse_network("127.0.0.2").expect("a network")] }
}

async fn client(lookup: Arc<dyn Lookup>) -> reqwest::Client {
    let settings = Settings { reach: reach(), lookup, ..Settings::new(Duration::from_secs(5), 4) };
    client::build(settings).await.expect("a client")
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_host_that_turns_private_is_not_reached_any_more() {
    let (public, private) = (Arc::<Mutex<u32>>::default(), Arc::<Mutex<u32>>::default());
    let outside = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let port = outside.local_addr().expect("an address").port();
    let inside = TcpListener::bind(("127.0.0.1", port)).await.expect("the same port");
    let receivers =
        [receiver(outside, OK.to_owned(), Arc::clone(&public)), receiver(inside, OK.to_owned(), Arc::clone(&private))];
    let client = client(Scripted::new(&[&["127.0.0.1", "127.0.0.2"], &["127.0.0.1"]])).await;
    let url = format!("http://rebinding.test:{port}/");
    let first = client.get(&url).send().await.expect("the public address answers");
    assert_eq!(first.status(), 200);
    for _ in 0..3 {
        let refused = client.get(&url).send().await.expect_err("it is private now");
        assert!(OutOfReach::caused(&refused), "{refused:?}");
        assert!(!client::causes(&refused).contains("127.0.0.1"), "where it would lead is not told");
    }
    assert_eq!((*public.lock().expect("not poisoned"), *private.lock().expect("not poisoned")), (1, 0));
    receivers.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_redirect_inside_is_not_followed() {
    let (public, private) = (Arc::<Mutex<u32>>::default(), Arc::<Mutex<u32>>::default());
    let outside = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let port = outside.local_addr().expect("an address").port();
    let inside = TcpListener::bind(("127.0.0.1", port)).await.expect("the same port");
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let receivers =
        [receiver(outside, redirect, Arc::clone(&public)), receiver(inside, OK.to_owned(), Arc::clone(&private))];
    let client = client(Scripted::new(&[&["127.0.0.2"]])).await;
    let answer = client.get(format!("http://redirecting.test:{port}/")).send().await.expect("an answer");
    assert_eq!(answer.status(), 307);
    assert_eq!((*public.lock().expect("not poisoned"), *private.lock().expect("not poisoned")), (1, 0));
    receivers.iter().for_each(JoinHandle::abort);
}
