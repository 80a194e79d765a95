//! One COPY for each archive, then one for the manifest: servers up to 14.

use backstop_protocol::backend::BackendMessage;

use super::{Part, Unexpected};

/// How many COPYs were seen, and whether one is open.
pub(crate) struct Copies {
    archives: usize,
    total: usize,
    next: usize,
    open: bool,
}

impl Copies {
    pub(crate) fn new(archives: usize, manifest: bool) -> Self {
        Self { archives, total: archives + usize::from(manifest), next: 0, open: false }
    }

    pub(crate) fn push(&mut self, message: BackendMessage, out: &mut Vec<Part>) -> Result<(), Unexpected> {
        let in_manifest = self.next == self.archives;
        match message {
            BackendMessage::CopyOutResponse if !self.open && self.next < self.total => {
                self.open = true;
                out.push(if in_manifest { Part::ManifestBegin } else { Part::ArchiveBegin(self.next) });
            }
            BackendMessage::CopyData(data) if self.open => {
                out.push(if in_manifest { Part::ManifestData(data) } else { Part::Data(data) });
            }
            BackendMessage::CopyDone if self.open => {
                self.open = false;
                self.next += 1;
                if !in_manifest {
                    out.push(Part::ArchiveEnd);
                }
                if self.next == self.total {
                    out.push(Part::End);
                }
            }
            other => {
                let expected = match (self.open, in_manifest) {
                    (true, _) => "CopyData or CopyDone".to_owned(),
                    (false, true) => "CopyOutResponse of the backup manifest".to_owned(),
                    (false, false) => format!("CopyOutResponse of archive {} of {}", self.next + 1, self.archives),
                };
                return Err(Unexpected::new(expected, other.name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn run(archives: usize, manifest: bool, messages: Vec<BackendMessage>) -> Result<Vec<Part>, Unexpected> {
        let mut copies = Copies::new(archives, manifest);
        let mut out = Vec::new();
        messages.into_iter().try_for_each(|message| copies.push(message, &mut out)).map(|()| out)
    }

    fn data(bytes: &'static [u8]) -> BackendMessage {
        BackendMessage::CopyData(Bytes::from_static(bytes))
    }

    #[test]
    fn archives_then_the_manifest() {
        use BackendMessage::{CopyDone, CopyOutResponse};
        let messages = vec![
            CopyOutResponse,
            data(b"a"),
            CopyDone,
            CopyOutResponse,
            data(b"b"),
            CopyDone,
            CopyOutResponse,
            data(b"{}"),
            CopyDone,
        ];
        let expected = vec![
            Part::ArchiveBegin(0),
            Part::Data("a".into()),
            Part::ArchiveEnd,
            Part::ArchiveBegin(1),
            Part::Data("b".into()),
            Part::ArchiveEnd,
            Part::ManifestBegin,
            Part::ManifestData("{}".into()),
            Part::End,
        ];
        assert_eq!(run(2, true, messages), Ok(expected));
    }

    #[test]
    fn an_archive_too_few_or_too_many_is_noticed() {
        use BackendMessage::{CopyDone, CopyOutResponse, RowDescription};
        let one = vec![CopyOutResponse, CopyDone];
        let error = run(2, false, [one.clone(), vec![RowDescription(vec![])]].concat()).expect_err("one is missing");
        assert_eq!(error.expected, "CopyOutResponse of archive 2 of 2");
        assert!(run(1, false, [one.clone(), one].concat()).is_err());
    }

    #[test]
    fn data_outside_a_copy_is_refused() {
        assert!(run(1, false, vec![data(b"x")]).is_err());
        assert!(run(1, false, vec![BackendMessage::CopyOutResponse, BackendMessage::CopyOutResponse]).is_err());
    }
}
