//! Small manifests that are wrong, each in one way.

/// What is wrong, and the manifest.
pub(crate) const BROKEN: &[(&str, &str)] = &[
    ("nothing", ""),
    ("one brace", "{"),
    ("an empty object", "{}"),
    ("an array", "[]\n\n"),
    ("a number", "1\n\n"),
    ("no JSON", "hello\n\n"),
    ("an object in place of a field", "{{}}\n"),
    ("another field first", "{\"not-expected\": 1}\n"),
    ("a version that is an object", "{\"PostgreSQL-Backup-Manifest-Version\": {}}\n"),
    ("a version that is a word", "{\"PostgreSQL-Backup-Manifest-Version\": \"phooey\"}\n"),
    ("a version of the future", "{\"PostgreSQL-Backup-Manifest-Version\": 9876599}\n"),
    ("version zero", "{\"PostgreSQL-Backup-Manifest-Version\": 0}\n"),
    (
        "a system identifier that is a word",
        "{\"PostgreSQL-Backup-Manifest-Version\": 2, \"System-Identifier\": \"x\"}\n",
    ),
    ("a field that nobody knows", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Oops\": 1}\n"),
    ("files that are an object", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": {}}\n"),
    ("files that are a number", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": 1}\n"),
    ("a file that is an array", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [[]]}\n"),
    ("a file that is a number", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [1]}\n"),
    ("a file without a path", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{}]}\n"),
    (
        "a file with two paths",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Encoded-Path\": \"1234\"}]}\n",
    ),
    (
        "a file with a field that nobody knows",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Oops\": 1}]}\n",
    ),
    ("a file without a size", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\"}]}\n"),
    (
        "a size that is a word",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Size\": \"Oops\"}]}\n",
    ),
    (
        "a path that is not hexadecimal",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Encoded-Path\": \"123\", \"Size\": 0}]}\n",
    ),
    (
        "a path twice",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Size\": 0}, {\"Path\": \"x\", \"Size\": 0}]}\n",
    ),
    (
        "a checksum without an algorithm",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \"Checksum\": \"Oops\"}]}\n",
    ),
    (
        "an algorithm that nobody knows",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \
         \"Checksum-Algorithm\": \"Oops\", \"Checksum\": \"00\"}]}\n",
    ),
    (
        "a checksum that is not hexadecimal",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \
         \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"Oops\"}]}\n",
    ),
    ("ranges that are a number", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": 1}\n"),
    ("a range that is a number", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [1]}\n"),
    (
        "a range with a field that nobody knows",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Oops\": 1}]}\n",
    ),
    ("a range without a timeline", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{}]}\n"),
    ("a range without a start", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Timeline\": 1}]}\n"),
    (
        "a range without an end",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/0\"}]}\n",
    ),
    (
        "a timeline that is a word",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Timeline\": \"x\", \"Start-LSN\": \"0/0\", \
         \"End-LSN\": \"0/0\"}]}\n",
    ),
    (
        "a start that is a word",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"oops\", \
         \"End-LSN\": \"0/0\"}]}\n",
    ),
    (
        "an end that is a word",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/0\", \
         \"End-LSN\": \"oops\"}]}\n",
    ),
    ("a checksum that is an object", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Manifest-Checksum\": {}}\n"),
    ("one line", "{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [], \"Manifest-Checksum\": null}"),
    (
        "a last line that does not end",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": null}",
    ),
    (
        "a checksum of the manifest that is none",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": null}\n",
    ),
    (
        "a checksum of the manifest that is too short",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": \"0000\"}\n",
    ),
    (
        "a checksum of the manifest that is another",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": \
         \"0000000000000000000000000000000000000000000000000000000000000000\"}\n",
    ),
    (
        "something behind the checksum of the manifest",
        "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": \"00\", \"Files\": []}\n",
    ),
    ("a comma that nothing follows", "{\"PostgreSQL-Backup-Manifest-Version\": 1,}\n\n"),
    ("a name that is not closed", "{\"PostgreSQL-Backup-Manifest-Version: 1}\n\n"),
    ("an escape that nobody knows", "{\"PostgreSQL\\qBackup-Manifest-Version\": 1}\n\n"),
    ("a control character in a name", "{\"PostgreSQL\tBackup-Manifest-Version\": 1}\n\n"),
    ("two documents", "{\"PostgreSQL-Backup-Manifest-Version\": 1}\n{}\n"),
];
