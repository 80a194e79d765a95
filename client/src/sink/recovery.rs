//! What `--write-recovery-conf` adds to a backup.

use backstop_protocol::version::ServerVersion;

use crate::options::RecoveryConfiguration;

/// The file that settings are written to: of its own before 12, where it also says that this is a standby.
pub(super) fn settings_file(version: ServerVersion) -> &'static str {
    if version.has_recovery_signal() { "postgresql.auto.conf" } else { "recovery.conf" }
}

/// The lines to append to the settings file, as `GenerateRecoveryConfig` writes them.
pub(super) fn settings(recovery: &RecoveryConfiguration, version: ServerVersion) -> String {
    let mode = if version.has_recovery_signal() { "" } else { "standby_mode = 'on'\n" };
    let conninfo =
        format!("primary_conninfo = '{}'\n", quoted(&recovery.primary_conninfo.to_primary_conninfo(version)));
    let slot = recovery.primary_slot_name.as_deref().map(|slot| format!("primary_slot_name = '{}'\n", quoted(slot)));
    [mode, &conninfo, slot.as_deref().unwrap_or_default()].concat()
}

/// Quotes and backslashes doubled, as `escape_quotes` does.
fn quoted(value: &str) -> String {
    value.chars().flat_map(|c| std::iter::repeat_n(c, if matches!(c, '\'' | '\\') { 2 } else { 1 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Conninfo;

    #[test]
    fn quotes_as_postgresql_does() {
        let recovery = RecoveryConfiguration {
            primary_conninfo: Conninfo::parse(r"user=me password='it\'s'").expect("pairs"),
            primary_slot_name: Some("s1".to_owned()),
        };
        insta::assert_snapshot!(settings(&recovery, ServerVersion::V15), @r#"
        primary_conninfo = 'user=me password=''it\\''s'' channel_binding=prefer port=5432 sslmode=prefer sslcompression=0 sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres target_session_attrs=any'
        primary_slot_name = 's1'
        "#);
        let before = [ServerVersion::V9_1, ServerVersion::V9_4, ServerVersion::V11];
        insta::assert_snapshot!(before.map(|version| settings(&recovery, version)).concat(), @r#"
        standby_mode = 'on'
        primary_conninfo = 'user=me password=''it\\''s'' port=5432 sslmode=prefer krbsrvname=postgres'
        primary_slot_name = 's1'
        standby_mode = 'on'
        primary_conninfo = 'user=me password=''it\\''s'' port=5432 sslmode=prefer sslcompression=1 krbsrvname=postgres'
        primary_slot_name = 's1'
        standby_mode = 'on'
        primary_conninfo = 'user=me password=''it\\''s'' port=5432 sslmode=prefer sslcompression=0 krbsrvname=postgres target_session_attrs=any'
        primary_slot_name = 's1'
        "#);
        assert_eq!(settings_file(ServerVersion::V11), "recovery.conf");
    }
}
