//! Who may come in, and how: start-up, encryption and authentication by release.

use super::ServerVersion;

impl ServerVersion {
    /// The protocol versions that the server names when it is asked for another: `3.0 to 3.2`.
    pub fn supported_protocols(self) -> String {
        let oldest = match self {
            _ if self >= Self::V14 => "3.0",
            _ if self >= Self::V11 => "2.0",
            _ => "1.0",
        };
        format!("{oldest} to 3.{}", self.newest_protocol_minor())
    }

    /// The newest protocol minor version that the server speaks: 3.2 since 18.
    pub fn newest_protocol_minor(self) -> u32 {
        if self >= Self::V18 { 2 } else { 0 }
    }

    /// Whether NegotiateProtocolVersion answers a newer minor version, and `_pq_.` begins the name of a protocol option. Before
    /// 9.3 a newer minor version is refused like a newer major one, and such a name is one of a setting.
    pub fn negotiates_protocol(self) -> bool {
        self >= Self::V9_3
    }

    /// Whether protocol 2 is spoken (up to 13). Errors that precede the StartupMessage then have its form: no length, the severity
    /// in the text.
    pub fn speaks_protocol_2(self) -> bool {
        self < Self::V14
    }

    /// Whether GSSENCRequest is known.
    pub fn has_gss_encryption(self) -> bool {
        self >= Self::V12
    }

    /// Whether a connection may begin with TLS itself, without SSLRequest. It must then choose `postgresql` by ALPN.
    pub fn has_direct_tls(self) -> bool {
        self >= Self::V17
    }

    /// Whether bytes that came in clear behind an SSLRequest or GSSENCRequest are an error (CVE-2021-23214: 9.6.24, 10.19 and later).
    pub fn refuses_unencrypted_data(self) -> bool {
        self >= Self::V9_6
    }

    /// The oldest TLS that `ssl_min_protocol_version` allows by default; the setting came with 12.
    pub fn default_oldest_tls(self) -> &'static str {
        if self >= Self::V13 { "TLSv1.2" } else { "TLSv1" }
    }

    /// Whether passwords can be checked with SCRAM-SHA-256.
    pub fn has_scram(self) -> bool {
        self >= Self::V10
    }

    /// Whether SCRAM-SHA-256-PLUS with `tls-server-end-point` is offered over TLS.
    pub fn has_channel_binding(self) -> bool {
        self >= Self::V11
    }

    /// Whether `scram_iterations` can be set. Before, there were 4096 always.
    pub fn has_scram_iterations(self) -> bool {
        self >= Self::V16
    }

    /// Whether `password_encryption` is `scram-sha-256` by default.
    pub fn encrypts_passwords_with_scram(self) -> bool {
        self >= Self::V14
    }

    /// How a refusal by `pg_hba.conf` ends: whether the connection is encrypted.
    pub fn encryption_in_refusals(self, encrypted: bool) -> &'static str {
        match (self >= Self::V14, encrypted) {
            (true, true) => "SSL encryption",
            (true, false) => "no encryption",
            (false, true) => "SSL on",
            (false, false) => "SSL off",
        }
    }

    /// Whether a superuser may start a walsender without the attribute REPLICATION.
    pub fn superusers_may_replicate(self) -> bool {
        self >= Self::V9_2
    }

    /// Whether a session may set its own `wal_sender_timeout`, which was read from the configuration alone before 12.
    pub fn sessions_set_wal_sender_timeout(self) -> bool {
        self >= Self::V12
    }

    /// How `application_name` shows a byte that is no printable ASCII: `\xc3` since 16, `?` before (`pg_clean_ascii`).
    pub fn escapes_unprintable_names(self) -> bool {
        self >= Self::V16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_come_and_go() {
        let supported = [ServerVersion::V9_6, ServerVersion::V12, ServerVersion::V14, ServerVersion::V18];
        assert_eq!(
            supported.map(ServerVersion::supported_protocols),
            ["1.0 to 3.0", "2.0 to 3.0", "3.0 to 3.0", "3.0 to 3.2"]
        );
    }
}
