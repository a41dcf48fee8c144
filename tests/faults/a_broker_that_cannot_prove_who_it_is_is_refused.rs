//! Over TLS the broker has to prove who it is, and we where it asks us; nothing falls back to plain
//! text, and no text shows a secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::broker::{Corner, drain, message, rabbitmq};
use support::database::Database;
use support::process::{Process, binary};
use support::services::amqp_url;
use support::tls::{Authority, Files, PlainPort, TlsFront};
use support::{bounded, eventually};
use transport::rabbitmq::{RabbitMq, RabbitSettings};
use transport::{Publisher, Subscriber, Unavailable, Verdict};

const CANARY: &str = "canary-4711";

/// Host and port of the broker of this run.
fn upstream() -> String {
    let url = url::Url::parse(&amqp_url()).expect("a URL");
    format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5672))
}

/// The address of the broker of this run with another way to it.
fn url(scheme: &str, host: &str, port: u16) -> String {
    let url = amqp_url();
    let (user, rest) =
        url.split_once("://").expect("a URL").1.split_once('@').expect("user and password");
    let vhost = rest.split_once('/').map_or("", |(_, vhost)| vhost);
    format!("{scheme}://{user}@{host}:{port}/{vhost}")
}

/// With a password of our own, which must not be seen anywhere.
fn canary_url(scheme: &str, host: &str, port: u16) -> String {
    format!("{scheme}://guest:{CANARY}@{host}:{port}/")
}

fn trusting(url: String, ca: &Path) -> RabbitSettings {
    let mut settings = RabbitSettings::new(url);
    settings.ca_file = Some(ca.to_owned());
    settings
}

/// Tries to connect on both sides and returns why that failed.
async fn refused(settings: &RabbitSettings) -> Unavailable {
    let broker = RabbitMq::new(settings).expect("the settings alone are fine");
    let publishing = broker.open_lane().await.err().expect("refused");
    let consuming = broker.subscribe("queue", 1).await.err().expect("refused");
    for error in [&publishing, &consuming] {
        let text = format!("{error} {error:?} {settings:?} {broker:?}");
        assert!(!text.contains(CANARY) && !text.contains("PRIVATE KEY"), "{text}");
    }
    publishing
}

#[track_caller]
fn insecure(error: &Unavailable, remedy: &str) {
    assert!(matches!(error, Unavailable::Insecure { .. }), "{error:?}");
    assert!(error.needs_operator());
    assert!(error.to_string().contains(remedy), "{error}");
}

/// Publishes, has it confirmed, and gets it back.
async fn works(settings: &RabbitSettings) {
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.pair().await;
    let broker = RabbitMq::new(settings).expect("valid settings");
    let mut lane = broker.open_lane().await.expect("a lane");
    let batch: Vec<_> = (0..200).map(|i| message(&exchange, "ok", i)).collect();
    assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 200]);
    let mut subscription = broker.subscribe(&queue, 200).await.expect("subscribed");
    let operations = drain(&mut *subscription, 200).await;
    assert!(operations.iter().enumerate().all(|(i, operation)| *operation == i.to_string()));
    drop((lane, subscription));
    Publisher::close(&broker).await;
    Subscriber::close(&broker).await;
    corner.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_the_right_certificate_is_spoken_to() {
    bounded(async {
        let (authority, files) = (Authority::new(), Files::new());
        let ca = files.write("ca.pem", &authority.pem);
        for host in ["localhost", "127.0.0.1"] {
            let front = TlsFront::to(upstream(), &authority.issue(host), None).await;
            works(&trusting(url("amqps", host, front.port), &ca)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_the_wrong_certificate_is_not() {
    bounded(async {
        let (authority, files) = (Authority::new(), Files::new());
        let ca = files.write("ca.pem", &authority.pem);
        let expired = TlsFront::to(upstream(), &authority.issue_expired("localhost"), None).await;
        let error = refused(&trusting(canary_url("amqps", "localhost", expired.port), &ca)).await;
        insecure(&error, "expired; renew it");

        let other_host = TlsFront::to(upstream(), &authority.issue("mq.example"), None).await;
        let error =
            refused(&trusting(canary_url("amqps", "localhost", other_host.port), &ca)).await;
        insecure(&error, "another name");

        let stranger = Authority::new();
        let stranger = TlsFront::to(upstream(), &stranger.issue("localhost"), None).await;
        let error = refused(&trusting(canary_url("amqps", "localhost", stranger.port), &ca)).await;
        insecure(&error, "ca_file");
        // Nor one that calls itself what ours is called.
        let (ours, impostor) = (Authority::named("ours"), Authority::named("ours"));
        let impostor = TlsFront::to(upstream(), &impostor.issue("localhost"), None).await;
        let ours = files.write("ours.pem", &ours.pem);
        let error =
            refused(&trusting(canary_url("amqps", "localhost", impostor.port), &ours)).await;
        insecure(&error, "ca_file");
        // Nor does the system vouch for ours.
        let error =
            refused(&RabbitSettings::new(canary_url("amqps", "localhost", stranger.port))).await;
        insecure(&error, "ca_file");
        for front in [expired, other_host, stranger, impostor] {
            assert_eq!(front.spoken_to_in_plain_text(), 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_who_we_are_is_told_and_a_renewed_certificate_is_taken_up() {
    bounded(async {
        let (authority, files) = (Authority::new(), Files::new());
        let ca = files.write("ca.pem", &authority.pem);
        let front = TlsFront::to(upstream(), &authority.issue("localhost"), Some(&authority)).await;
        let mut settings = trusting(url("amqps", "localhost", front.port), &ca);
        let nobody = refused(&settings).await;
        // The broker's word on it can be lost with the connection.
        assert!(matches!(nobody, Unavailable::Insecure { .. } | Unavailable::Unreachable { .. }));
        assert!(nobody.to_string().contains("client_cert_file"), "{nobody}");

        let stranger = Authority::new().issue("relay");
        settings.client_cert_file = Some(files.write("cert.pem", &stranger.certificate));
        settings.client_key_file = Some(files.write("key.pem", &stranger.key));
        let unknown = refused(&settings).await;
        assert!(matches!(unknown, Unavailable::Insecure { .. } | Unavailable::Unreachable { .. }));

        let broker = RabbitMq::new(&settings).expect("valid settings");
        let known = authority.issue("relay");
        let _ = files.write("cert.pem", &known.certificate);
        let _ = files.write("key.pem", &known.key);
        eventually("the same client gets in", async || broker.open_lane().await.is_ok()).await;
        works(&settings).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_hears_nothing_in_plain_text() {
    bounded(async {
        let (authority, files) = (Authority::new(), Files::new());
        let ca = files.write("ca.pem", &authority.pem);
        let plain = PlainPort::open().await;
        let mut settings = trusting(canary_url("amqps", "localhost", plain.port), &ca);
        settings.allow_plaintext = true;
        insecure(&refused(&settings).await, "does not speak TLS");
        let heard = plain.heard();
        assert!(!heard.is_empty() && !heard.starts_with(b"AMQP"));
        assert!(!String::from_utf8_lossy(&heard).contains(CANARY));
        // The broker's own plain port behaves alike.
        let (_, port) =
            upstream().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).expect("a port");
        let port = port.parse().expect("a number");
        settings.url = canary_url("amqps", "localhost", port);
        insecure(&refused(&settings).await, "does not speak TLS");

        // The other way round nothing of ours is said either, the greeting apart.
        let front = TlsFront::to(upstream(), &authority.issue("localhost"), None).await;
        let error =
            refused(&RabbitSettings::new(canary_url("amqp", "localhost", front.port))).await;
        assert!(!error.needs_operator(), "it may be starting: {error}");
    })
    .await;
}

#[test]
fn files_that_cannot_be_used_are_named_and_not_quoted() {
    let (authority, files) = (Authority::new(), Files::new());
    let ca = files.write("ca.pem", &authority.pem);
    let identity = authority.issue("relay");
    let (certificate, key) =
        (files.write("cert.pem", &identity.certificate), files.write("key.pem", &identity.key));
    let other_key = files.write("other.pem", &authority.issue("other").key);
    let garbage = files.write("garbage.pem", &format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n"));
    let missing = PathBuf::from("/nonexistent/file.pem");
    let check = |ca: &PathBuf, own: Option<(&PathBuf, &PathBuf)>| {
        let mut settings = trusting(canary_url("amqps", "localhost", 5671), ca);
        settings.client_cert_file = own.map(|(certificate, _)| certificate.clone());
        settings.client_key_file = own.map(|(_, key)| key.clone());
        let text = format!("{settings:?}");
        assert!(!text.contains(CANARY) && !text.contains("PRIVATE"), "{text}");
        RabbitMq::new(&settings)
    };
    check(&ca, Some((&certificate, &key))).expect("all good");
    for (settings, says) in [
        (check(&missing, None), "ca_file /nonexistent"),
        (check(&key, None), "holds no certificate"),
        (check(&ca, Some((&missing, &key))), "client_cert_file /nonexistent"),
        (check(&ca, Some((&certificate, &missing))), "client_key_file /nonexistent"),
        (check(&ca, Some((&certificate, &certificate))), "no private key"),
        (check(&ca, Some((&certificate, &garbage))), "no private key"),
        (check(&ca, Some((&certificate, &other_key))), "the private key it was made for"),
    ] {
        let error = settings.expect_err(says);
        assert!(matches!(error, Unavailable::BadSettings { .. }) && error.needs_operator());
        let text = format!("{error} {error:?}");
        assert!(text.contains(says) && !text.contains(CANARY), "{says:?}: {text}");
    }
}

#[test]
fn the_program_says_all_this_once_and_ends() {
    let database = Database::postgres();
    let run = |url: &str, env: &[(&str, &str)]| {
        let mut command = Command::new(binary("relay"));
        command.arg("run").env("RELAY_DATABASE_URL", &database.url).env("RELAY_AMQP_URL", url);
        command.env("RELAY_LOG", "trace").envs(env.iter().copied());
        Process::spawn(command)
    };
    let mut relay = run(&canary_url("amqp", "mq.example", 5672), &[]);
    assert!(!relay.finish().success());
    for said in ["allow_plaintext", "amqps://"] {
        assert!(relay.output.contains(said), "{}", relay.output);
    }
    assert!(!relay.output.contains(CANARY), "{}", relay.output);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (authority, files) = (Authority::new(), Files::new());
    let front =
        runtime.block_on(TlsFront::to(upstream(), &authority.issue_expired("localhost"), None));
    let ca = files.write("ca.pem", &authority.pem);
    let ca = ca.to_str().expect("text");
    let mut relay =
        run(&canary_url("amqps", "localhost", front.port), &[("RELAY_BROKER_CA_FILE", ca)]);
    assert!(!relay.finish().success());
    assert!(relay.output.contains("no secure connection"), "{}", relay.output);
    assert!(!relay.output.contains(CANARY), "{}", relay.output);

    let front = runtime.block_on(TlsFront::to(upstream(), &authority.issue("localhost"), None));
    let mut relay = run(&url("amqps", "localhost", front.port), &[("RELAY_BROKER_CA_FILE", ca)]);
    relay.wait_for("connected to the broker");
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    // Whom the system trusts counts where no authority is named, and only there.
    let mut relay = run(&url("amqps", "localhost", front.port), &[("SSL_CERT_FILE", ca)]);
    relay.wait_for("connected to the broker");
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    let other = files.write("other.pem", &Authority::new().pem);
    let other = other.to_str().expect("text");
    let env = [("SSL_CERT_FILE", ca), ("RELAY_BROKER_CA_FILE", other)];
    let mut relay = run(&url("amqps", "localhost", front.port), &env);
    assert!(!relay.finish().success());
    assert!(relay.output.contains("not trusted here"), "{}", relay.output);
}
