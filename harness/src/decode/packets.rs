//! Captures of packets, as `tcpdump` and [`crate::capture`] write them: pcap and pcapng, over what loopback interfaces look like.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::reassembly::{Next, Reassembly};
use super::source::Piece;
use super::{DecodeError, From};

/// The largest block of a capture: a packet of 256 KiB, which is `tcpdump`'s limit, and its header.
const BUFFER: usize = 1 << 19;

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// The number that a capture begins with, in either order of bytes, with micro- or nanoseconds; or pcapng's.
pub(super) fn is_capture(head: &[u8]) -> bool {
    const MAGIC: [[u8; 4]; 5] = [
        [0xD4, 0xC3, 0xB2, 0xA1],
        [0xA1, 0xB2, 0xC3, 0xD4],
        [0x4D, 0x3C, 0xB2, 0xA1],
        [0xA1, 0xB2, 0x3C, 0x4D],
        [10, 13, 13, 10],
    ];
    MAGIC.iter().any(|magic| head.starts_with(magic))
}

/// Reads a capture and hands out what its TCP connections carry.
pub(super) fn read(
    input: impl Read + Send,
    each: &mut dyn FnMut(Piece) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let broken = |error: PcapError<&[u8]>| DecodeError::Capture(format!("not a whole capture: {error}"));
    let mut reader = create_reader(BUFFER, input).map_err(broken)?;
    let mut capture =
        Capture { flows: BTreeMap::new(), opened: 0, link: Linktype(0), links: Vec::new(), start: None, each };
    let mut asked = 0;
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                capture.block(&block)?;
                reader.consume(offset);
                asked = 0;
            }
            Err(PcapError::Incomplete(_)) if asked < 2 => {
                asked += 1;
                reader.refill().map_err(broken)?;
            }
            // The end, or one in the middle of a packet, as captures have that were copied while they were written.
            Err(PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_)) => break,
            Err(error) => return Err(DecodeError::Capture(format!("not a whole capture: {error:?}"))),
        }
    }
    capture.finish()
}

struct Capture<'a> {
    /// By the two ends, the lower one first.
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
    opened: u32,
    /// What packets begin with.
    link: Linktype,
    /// The same for each interface of pcapng, and the units of its times in a second.
    links: Vec<(Linktype, u64)>,
    /// The time of the first packet.
    start: Option<Duration>,
    each: &'a mut dyn FnMut(Piece) -> Result<(), DecodeError>,
}

struct Flow {
    number: u32,
    client: SocketAddr,
    /// Of the client, of the server.
    directions: [Reassembly; 2],
    /// Which of them have ended.
    ended: [bool; 2],
}

/// What matters of a TCP segment.
struct Segment<'a> {
    source: SocketAddr,
    destination: SocketAddr,
    sequence: u32,
    begins: bool,
    answers: bool,
    ends: bool,
    reset: bool,
    data: &'a [u8],
}

impl Capture<'_> {
    fn block(&mut self, block: &PcapBlockOwned<'_>) -> Result<(), DecodeError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.link = header.network;
                // A number of its own says that the fractions of seconds are nanoseconds.
                self.links =
                    vec![(header.network, if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 })];
                Ok(())
            }
            PcapBlockOwned::Legacy(packet) => {
                let nanoseconds = self.links.first().is_some_and(|(_, units)| *units == 1_000_000_000);
                let fraction = u64::from(packet.ts_usec) * if nanoseconds { 1 } else { 1000 };
                let at = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(fraction);
                self.packet(at, self.link, packet.data)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.links.clear();
                Ok(())
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.links.push((interface.linktype, interface.ts_resolution().unwrap_or(1_000_000).max(1)));
                Ok(())
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = usize::try_from(packet.if_id).ok().and_then(|id| self.links.get(id));
                let Some((link, units)) = interface.copied() else { return Ok(()) };
                let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let nanoseconds = u128::from(time % units) * 1_000_000_000 / u128::from(units);
                let at =
                    Duration::from_secs(time / units) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
                let length = usize::try_from(packet.caplen).unwrap_or(usize::MAX).min(packet.data.len());
                self.packet(at, link, packet.data.get(..length).unwrap_or_default())
            }
            PcapBlockOwned::NG(_) => Ok(()),
        }
    }

    fn packet(&mut self, at: Duration, link: Linktype, data: &[u8]) -> Result<(), DecodeError> {
        let start = *self.start.get_or_insert(at);
        let packet = match link {
            Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok(),
            Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12) => LaxSlicedPacket::from_ip(data).ok(),
            // Four bytes of the address family.
            Linktype::NULL | Linktype::LOOP => data.get(4..).and_then(|data| LaxSlicedPacket::from_ip(data).ok()),
            // What the interface "any" of Linux gives, in two versions: the protocol stands at the end or at the beginning.
            Linktype::LINUX_SLL => cooked(data, 14, 16),
            Linktype(276) => cooked(data, 0, 20),
            other => {
                let text =
                    format!("packets of link type {} are not known here: capture on a loopback interface", other.0);
                return Err(DecodeError::Capture(text));
            }
        };
        match packet.as_ref().and_then(segment) {
            Some(segment) => self.segment(at.saturating_sub(start), &segment),
            None => Ok(()),
        }
    }

    fn segment(&mut self, at: Duration, segment: &Segment<'_>) -> Result<(), DecodeError> {
        let (source, destination) = (segment.source, segment.destination);
        let key = (source.min(destination), source.max(destination));
        let opens = segment.begins && !segment.answers;
        if opens && let Some(flow) = self.flows.remove(&key) {
            // The same ports again.
            self.close(flow)?;
        }
        if !self.flows.contains_key(&key) {
            if segment.data.is_empty() && !segment.begins {
                return Ok(());
            }
            let flow = self.open(segment)?;
            self.flows.insert(key, flow);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return Ok(()) };
        let which = usize::from(source != flow.client);
        let from = if which == 0 { From::Client } else { From::Server };
        let Some(direction) = flow.directions.get_mut(which) else { return Ok(()) };
        let mut found = Vec::new();
        if segment.begins {
            found.extend(direction.flag(segment.sequence, true));
        }
        found.extend(direction.push(segment.sequence, segment.data));
        if segment.ends {
            let length = u32::try_from(segment.data.len()).unwrap_or_default();
            found.extend(direction.flag(segment.sequence.wrapping_add(length), false));
            flow.ended[which] = true;
        }
        let (number, over) = (flow.number, segment.reset || flow.ended == [true; 2]);
        for next in found {
            (self.each)(piece(number, Some(at), from, next))?;
        }
        match self.flows.remove(&key) {
            Some(flow) if over => self.close(flow),
            Some(flow) => {
                self.flows.insert(key, flow);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn open(&mut self, segment: &Segment<'_>) -> Result<Flow, DecodeError> {
        self.opened += 1;
        let (source, destination) = (segment.source, segment.destination);
        let by_client = match (segment.begins, segment.answers) {
            (true, answers) => !answers,
            // A packet without a type begins with a length of which two bytes are zero.
            _ if segment.data.starts_with(&[0, 0]) => true,
            _ if source.port() == PORT || destination.port() == PORT => destination.port() == PORT,
            _ => destination.port() < source.port(),
        };
        let (client, server) = if by_client { (source, destination) } else { (destination, source) };
        let number = self.opened;
        (self.each)(Piece::Connection { number, name: format!("{client} to {server}") })?;
        Ok(Flow { number, client, directions: Default::default(), ended: [false; 2] })
    }

    fn close(&mut self, mut flow: Flow) -> Result<(), DecodeError> {
        for (direction, from) in flow.directions.iter_mut().zip([From::Client, From::Server]) {
            for next in direction.finish() {
                (self.each)(piece(flow.number, None, from, next))?;
            }
        }
        (self.each)(Piece::End { number: flow.number })
    }

    fn finish(mut self) -> Result<(), DecodeError> {
        let mut flows: Vec<Flow> = std::mem::take(&mut self.flows).into_values().collect();
        flows.sort_by_key(|flow| flow.number);
        flows.into_iter().try_for_each(|flow| self.close(flow))
    }
}

fn piece(number: u32, at: Option<Duration>, from: From, next: Next) -> Piece {
    match next {
        Next::Bytes(bytes) => Piece::Bytes { number, at, from, bytes },
        Next::Missing(bytes) => Piece::Missing { number, at, from, bytes },
    }
}

/// A packet with a header of `length` bytes, at `protocol` of which its ether type stands.
fn cooked(data: &[u8], protocol: usize, length: usize) -> Option<LaxSlicedPacket<'_>> {
    let ether_type = data.get(protocol..)?.first_chunk()?;
    Some(LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes(*ether_type)), data.get(length..)?))
}

/// The TCP segment of a packet, if it is one.
fn segment<'a>(packet: &LaxSlicedPacket<'a>) -> Option<Segment<'a>> {
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    Some(Segment {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        begins: tcp.syn(),
        answers: tcp.ack(),
        ends: tcp.fin(),
        reset: tcp.rst(),
        data: tcp.payload(),
    })
}
