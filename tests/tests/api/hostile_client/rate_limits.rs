//! Rate limits of requests.

use std::fs;

use serde_json::Value;
use tests::{
    net::{process::succeed, wait},
    services::{
        agent::binary,
        api_fixture::{ApiFixture, TlsClient, address},
    },
};

use crate::run_serially;

#[test]
fn request_rate_is_limited_per_principal_and_tenant() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_CHANGES_PER_SECOND", "2"),
        ("PLGW_READS_PER_SECOND", "4"),
        ("PLGW_TENANT_CHANGES_PER_SECOND", "3"),
        ("PLGW_TENANT_READS_PER_SECOND", "0"),
        ("PLGW_UNAUTHENTICATED_PER_SECOND", "2"),
    ]);
    let [one, two] = ["a/one", "a/two"].map(|token| fixture.create_token(token, "admin"));
    let other = fixture.create_token("b/other", "admin");
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        let mut refused = |method: &str, path: &str, token: &str, max_requests: usize| {
            (0..max_requests).find_map(|_| {
                // No body, since the gateway may close a connection whose body it does not read.
                let answer = client.request(method, path, token, "").expect("an answer");
                (answer.status == 429).then_some(answer)
            })
        };
        // A burst holds four seconds' requests: eight changes. Requests that fail for another reason count, too.
        let answer = refused("DELETE", "/v1/tenants/a/tokens/none", &one, 200);
        let answer = answer.expect("a limit");
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
        let problem: Value = serde_json::from_str(&answer.body).expect("a problem");
        assert_eq!(problem["code"], "rate_limited");
        // Another principal has a limit of its own, and the tenant's limit is reached soon, too.
        let answer = refused("DELETE", "/v1/tenants/a/tokens/none", &two, 200);
        assert!(answer.is_some());
        // Reads have separate limits, and so have the principals of other tenants.
        let answer = client
            .request("GET", "/v1/tenants/a", &one, "")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = client
            .request("DELETE", "/v1/tenants/b/tokens/none", &other, "")
            .expect("an answer");
        assert_eq!(answer.status, 404, "{answer:?}");
        // Requests without a valid credential count for their /64, and the connection is closed at the limit.
        let mut stranger = TlsClient::connect(&config, address(1, 1)).expect("a connection");
        let mut refused = None;
        for number in 0..200 {
            let mut neighbour =
                TlsClient::connect(&config, address(1, 1 + number % 8)).expect("a connection");
            let answer = neighbour
                .request("GET", "/v1/whoami", "gwt_unknown", "")
                .expect("an answer");
            if answer.status == 429 {
                neighbour.wait_for_close().expect("a closed connection");
                refused = Some(answer);
                break;
            }
            assert_eq!(answer.status, 401, "{answer:?}");
        }
        assert!(refused.expect("a limit").head.contains("retry-after: "));
        // An authenticated client at the same address is served.
        let answer = stranger
            .request("GET", "/v1/tenants/b", &other, "")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    // The operator has no rate limit.
    for _ in 0..20 {
        assert_eq!(
            fixture.agent.http("DELETE", "/v1/tenants/none", None).0,
            404
        );
    }
}

#[test]
fn cli_retries_after_rate_limiting() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[("PLGW_CHANGES_PER_SECOND", "1")]);
    let file = fixture.create_token_file("a/busy", "admin");
    let token = fs::read_to_string(&file)
        .expect("a token")
        .trim()
        .to_owned();
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        wait::until_true("the limit", || {
            let answer = client.request("DELETE", "/v1/tenants/a/tokens/none", &token, "");
            answer.expect("an answer").status == 429
        });
    });
    let mut command = fixture.host.command(&binary().display().to_string());
    command.args(["tenant", "token", "create", "a/more", "--role", "viewer"]);
    command.args(["--server", "https://127.0.0.1:8443", "--ca"]);
    command.arg(fixture.ca.certificate());
    command.arg("--token-file").arg(file);
    succeed(&mut command);
}
