//! Settings of trusted issuers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Trusted issuer: `URL,audience=AUDIENCE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IssuerSettings {
    /// URL of the issuer: the `iss` of its tokens.
    pub url: String,
    /// Required audience of the tokens (`aud`).
    pub audience: String,
}

impl FromStr for IssuerSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an issuer: write URL,audience=AUDIENCE");
        let (url, audience) = text.split_once(",audience=").ok_or_else(wrong)?;
        let parsed =
            reqwest::Url::parse(url).map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        if parsed.scheme() != "https" {
            return Err(format!(
                "{url} is not an https URL: name the issuer's https URL"
            ));
        }
        // OpenID Connect Discovery 1.0, section 3. The `#` is excluded because principals are named ISSUER#SUBJECT.
        let plain = parsed.query().is_none()
            && parsed.fragment().is_none()
            && parsed.username().is_empty()
            && parsed.password().is_none();
        if !plain {
            return Err(format!(
                "{url} has a query, fragment or user, which an issuer's URL must not have: omit it"
            ));
        }
        if audience.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            url: url.to_owned(),
            audience: audience.to_owned(),
        })
    }
}

impl From<IssuerSettings> for String {
    fn from(IssuerSettings { url, audience }: IssuerSettings) -> Self {
        format!("{url},audience={audience}")
    }
}

impl TryFrom<String> for IssuerSettings {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_an_https_url_with_an_audience() {
        let good: IssuerSettings = "https://idp.example.com/realms/main,audience=gateway"
            .parse()
            .unwrap();
        assert_eq!(good.url, "https://idp.example.com/realms/main");
        assert_eq!(good.audience, "gateway");
        for wrong in [
            "https://idp.example.com",
            "http://idp.example.com,audience=x",
            "idp,audience=x",
            "https://idp,audience=",
            "https://idp/#other,audience=x",
            "https://idp/?x=1,audience=x",
            "https://user@idp/,audience=x",
        ] {
            assert!(wrong.parse::<IssuerSettings>().is_err(), "{wrong}");
        }
    }
}
