//! Authentication with tokens, JWTs of OIDC issuers and client certificates.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tests::{
    net::{
        process::{fail, succeed},
        wait,
    },
    services::{
        agent::binary,
        oidc_provider::OidcProvider,
        test_ca::TestCa,
        tls_fixture::{LISTEN, TlsFixture, read_token},
    },
};

#[test]
fn revoked_or_expired_token_is_rejected_on_open_streams_too() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    let path = fixture.create_token_file("a/stream", "viewer");
    let token = read_token(&path);
    assert_eq!(
        fixture.get_with_token(&token, "GET", "/v1/tenants/a").0,
        200
    );

    let mut command = fixture.remote_cli(&path, "-o json event list --follow");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command line");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // The stream is open once it shows an event, so create endpoints until it does.
    let (sender, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            let _gone = sender.send(line.expect("a line"));
        }
    });
    let mut number = 0;
    let first = wait::until("an event", std::time::Duration::from_secs(20), || {
        number += 1;
        agent.cli(&format!(
            "endpoint create a/e{number} --network net --address 10.0.1.{number} --service shop/web"
        ));
        seen.recv_timeout(std::time::Duration::from_millis(200))
            .ok()
    });
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(
        (&first["kind"], &first["action"]),
        (&json!("endpoint"), &json!("requested"))
    );

    agent.cli("tenant token revoke a/stream");
    let (status, refusal) = fixture.get_with_token(&token, "GET", "/v1/tenants/a");
    assert_eq!(status, 401, "{refusal}");
    // The stream ends and carries no later event.
    agent.cli("endpoint create a/late --network net --address 10.0.0.120 --service shop/web");
    reader.join().expect("the reader to finish");
    let rest: Vec<String> = seen.iter().collect();
    assert!(!rest.iter().any(|line| line.contains("a/late")), "{rest:?}");
    assert!(child.wait().expect("an exit status").success());

    let short = fixture.ca.directory().join("short");
    agent.cli(&format!(
        "tenant token create a/short --role viewer --expires-in 2s --output-file {}",
        short.display()
    ));
    let short = read_token(&short);
    assert_eq!(
        fixture.get_with_token(&short, "GET", "/v1/tenants/a").0,
        200
    );
    wait::until_true("the token to expire", || {
        fixture.get_with_token(&short, "GET", "/v1/tenants/a").0 == 401
    });
    // Lists, the store and the log hold no secret.
    let listed = agent.cli("tenant token list -o json");
    assert!(
        listed.contains("short") && !listed.contains("gwt_"),
        "{listed}"
    );
    let store = fs::read(agent.state_directory().join("state.db")).expect("the store");
    assert!(!store.windows(4).any(|bytes| bytes == b"gwt_"));
    assert!(!agent.log().contains("gwt_"));
}

#[test]
fn users_of_two_identity_providers_work_together() {
    let mut issuers = Vec::new();
    let fixture = TlsFixture::start(|testbed, ca, agent| {
        issuers.push(OidcProvider::start(&testbed.host, ca, 8444));
        issuers.push(OidcProvider::start(&testbed.host, ca, 8445));
        let settings = format!(
            "{},audience=gateway {},audience=gateway",
            issuers[0].url, issuers[1].url
        );
        agent
            .settings
            .insert("PLGW_OIDC_ISSUERS".to_owned(), settings);
        // The wait for a rotated key sends many requests that are refused, faster on some machines than on others.
        let no_limit = ("PLGW_UNAUTHENTICATED_PER_SECOND", "0");
        agent.settings.insert(no_limit.0.into(), no_limit.1.into());
    });
    let agent = &fixture.testbed.agent;
    let [first, second] = [&issuers[0].url, &issuers[1].url];
    agent.cli(&format!(
        "tenant identity create a/ops --issuer {first} --claim groups --value ops --role consumer"
    ));
    agent.cli(&format!(
        "tenant identity create shop/boss --issuer {second} --value boss --role provider"
    ));
    let refusal = agent
        .cli_error("tenant identity create a/x --issuer https://elsewhere --value x --role viewer");
    assert!(
        refusal.contains("not an issuer that the gateway trusts"),
        "{refusal}"
    );

    let consumer =
        issuers[0].sign_token(json!({ "groups": ["dev", "ops"], "preferred_username": "kim" }));
    let provider = issuers[1].sign_token(json!({ "sub": "boss" }));
    let whoami = |token: &str| {
        let (status, text) = fixture.get_with_token(token, "GET", "/v1/whoami");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    assert_eq!(whoami(&consumer)["roles"], json!({ "a": "consumer" }));
    assert_eq!(
        whoami(&consumer)["name"],
        format!("oidc:{first}#somebody (kim)")
    );
    assert_eq!(whoami(&provider)["roles"], json!({ "shop": "provider" }));
    // An issuer's claims count for the identities of that issuer only.
    let wrong_issuer = issuers[0].sign_token(json!({ "sub": "boss" }));
    assert_eq!(whoami(&wrong_issuer)["roles"], json!({}));
    assert_eq!(
        fixture
            .get_with_token(&wrong_issuer, "GET", "/v1/tenants/shop")
            .0,
        404
    );

    // Tokens that are forged, for another audience, from another issuer, or not valid now are refused.
    let none = {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = issuers[0].with_default_claims(json!({ "groups": ["ops"] }));
        format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
    };
    let secret = {
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        let key = jsonwebtoken::EncodingKey::from_secret(b"public");
        let claims = issuers[0].with_default_claims(json!({ "groups": ["ops"] }));
        jsonwebtoken::encode(&header, &claims, &key).expect("a token")
    };
    let mut forged = consumer.clone();
    forged.replace_range(forged.len() - 6.., "AAAAAA");
    for (what, token) in [
        (
            "audience",
            issuers[0].sign_token(json!({ "aud": "others", "groups": ["ops"] })),
        ),
        (
            "expiry",
            issuers[0].sign_token(json!({ "exp": 1_000_000_000, "groups": ["ops"] })),
        ),
        (
            "not yet",
            issuers[0].sign_token(json!({ "nbf": 4_000_000_000u64, "groups": ["ops"] })),
        ),
        (
            "key of another issuer",
            issuers[1].sign_token(json!({ "iss": first, "groups": ["ops"] })),
        ),
        (
            "issuer",
            issuers[0].sign_token(json!({ "iss": "https://elsewhere", "groups": ["ops"] })),
        ),
        ("unsigned", none),
        ("symmetric", secret),
        ("forged", forged),
        ("no token", "a.b.c".to_owned()),
    ] {
        let (status, text) = fixture.get_with_token(&token, "GET", "/v1/whoami");
        assert_eq!(status, 401, "{what}: {text}");
    }

    // After a key rotation the new key is accepted and the old one refused.
    issuers[0].rotate_key("second");
    let rotated = issuers[0].sign_token(json!({ "groups": ["ops"] }));
    wait::until_true("the new key to be accepted", || {
        fixture.get_with_token(&rotated, "GET", "/v1/whoami").0 == 200
    });
    let old = issuers[0].sign_token_with_key(0, json!({ "groups": ["ops"] }));
    assert_eq!(fixture.get_with_token(&old, "GET", "/v1/whoami").0, 401);
    // The deletion of an identity takes effect at once.
    agent.cli("tenant identity delete a/ops");
    assert_eq!(whoami(&rotated)["roles"], json!({}));
}

#[test]
fn client_certificate_authenticates_like_a_token() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    agent.cli(&format!(
        "tenant identity create a/build --issuer certificate --claim dns --value build --role viewer --authority {}",
        fixture.ca.certificate().display()
    ));
    let signed = fixture.ca.issue("build");
    let certificate_arguments = |signed: &tests::services::test_ca::IssuedCertificate| {
        [
            "--cert".to_owned(),
            signed.certificate.display().to_string(),
            "--key".to_owned(),
            signed.key.display().to_string(),
        ]
    };
    let get = |signed: &tests::services::test_ca::IssuedCertificate, path: &str| {
        let arguments = certificate_arguments(signed);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fixture.curl("GET", path, &arguments)
    };
    assert_eq!(get(&signed, "/v1/tenants/a").0, 200);
    let (_, text) = get(&signed, "/v1/whoami");
    assert!(
        text.contains("certificate sha256:") && text.contains("(build)"),
        "{text}"
    );
    assert_eq!(get(&signed, "/v1/tenants/shop").0, 404);
    assert_eq!(get(&fixture.ca.issue("other"), "/v1/tenants/a").0, 404);
    // The handshake fails with a certificate of an unknown CA.
    let unknown_ca = TestCa::new();
    let foreign = unknown_ca.issue("build");
    let mut command = fixture.testbed.host.command("curl");
    command.args(["-sS", "-m", "20"]);
    command.arg("--cacert").arg(fixture.ca.certificate());
    command
        .args(certificate_arguments(&foreign))
        .arg(format!("https://{LISTEN}/v1/whoami"));
    let refusal = fail(&mut command);
    assert!(refusal.contains("alert"), "{refusal}");
    // The command line authenticates with a client certificate, too.
    let mut command = fixture
        .testbed
        .host
        .command(&binary().display().to_string());
    command.args(["whoami", "--server", &format!("https://{LISTEN}"), "--ca"]);
    command.arg(fixture.ca.certificate());
    command.arg("--client-certificate").arg(&signed.certificate);
    command.arg("--client-key").arg(&signed.key);
    let shown = succeed(&mut command);
    assert!(shown.contains("viewer of a"), "{shown}");
}
