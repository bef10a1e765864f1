//! Agents for Lockstep in Rust: records in, records out, no crate needed.
//!
//! docs/abi.md of Lockstep says what the records mean. What is sent leaves when the turn ends: in
//! `recv`, when the last event of the turn was taken.
#![allow(dead_code)]

/// Kinds of records (docs/abi.md).
pub struct Kind;

impl Kind {
    pub const START: u16 = 1;
    pub const ITEM: u16 = 2;
    pub const MESSAGE: u16 = 3;
    pub const RESULT: u16 = 4;
    pub const TIMER: u16 = 5;
    pub const TOOL_RESULT: u16 = 6;
    pub const CANCELLED: u16 = 7;
    pub const UNDELIVERED: u16 = 8;
    pub const CLOSE: u16 = 9;
    pub const EVENT: u16 = 10;
    pub const SEND: u16 = 33;
    pub const EMIT: u16 = 34;
    pub const INFER: u16 = 35;
    pub const CANCEL: u16 = 36;
    pub const SUBSCRIBE: u16 = 37;
    pub const SET_TIMER: u16 = 38;
    pub const TOOL_CALL: u16 = 39;
    pub const LOG: u16 = 40;
    pub const DONE: u16 = 41;
}

pub const FLAG_ERROR: u16 = 2;
/// As peer.
pub const NOBODY: u32 = 0xFFFF_FFFF;

/// A record that came in.
pub struct Event {
    pub kind: u16,
    pub flags: u16,
    pub id: u64,
    pub item: u64,
    pub peer: u32,
    pub payload: Vec<u8>,
}

#[link(wasm_import_module = "lockstep")]
extern "C" {
    fn turn(out: *const u8, out_len: u32, into: *mut u8, cap: u32) -> i32;
}

const HEADER: usize = 32;

/// What goes out with this turn, and what came in with it.
pub struct Agent {
    out: Vec<u8>,
    events: Vec<u8>,
    len: usize,
    next: usize,
}

impl Agent {
    pub fn new() -> Agent {
        Agent {
            out: Vec::new(),
            events: vec![0; 65536],
            len: 0,
            next: 0,
        }
    }

    /// The next event. When there is no more of this turn it ends: what was sent leaves, and this
    /// waits for the next one.
    pub fn recv(&mut self) -> Event {
        while self.next >= self.len {
            self.len = self.turn();
            self.next = 0;
        }
        let at = self.next;
        let size = u32::from_le_bytes(self.bytes(at)) as usize;
        self.next = at + ((size + 7) & !7);
        Event {
            kind: u16::from_le_bytes(self.bytes(at + 4)),
            flags: u16::from_le_bytes(self.bytes(at + 6)),
            id: u64::from_le_bytes(self.bytes(at + 8)),
            item: u64::from_le_bytes(self.bytes(at + 16)),
            peer: u32::from_le_bytes(self.bytes(at + 24)),
            payload: self.events[at + HEADER..at + size].to_vec(),
        }
    }

    /// Any record at all.
    pub fn write(&mut self, kind: u16, flags: u16, id: u64, item: u64, peer: u32, payload: &[u8]) {
        let size = (HEADER + payload.len()) as u32;
        self.out.extend_from_slice(&size.to_le_bytes());
        self.out.extend_from_slice(&kind.to_le_bytes());
        self.out.extend_from_slice(&flags.to_le_bytes());
        self.out.extend_from_slice(&id.to_le_bytes());
        self.out.extend_from_slice(&item.to_le_bytes());
        self.out.extend_from_slice(&peer.to_le_bytes());
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(payload);
        self.out.resize((self.out.len() + 7) & !7, 0);
    }

    /// The output for an item: JSON if it parses, else text. Once per item.
    pub fn emit(&mut self, item: u64, payload: &[u8]) {
        self.write(Kind::EMIT, 0, 0, item, NOBODY, payload);
    }

    /// Give an item up: it fails, and this is why.
    pub fn give_up(&mut self, item: u64, why: &str) {
        self.write(Kind::EMIT, FLAG_ERROR, 0, item, NOBODY, why.as_bytes());
    }

    /// A message to another agent, by its index in START.
    pub fn send(&mut self, peer: u32, id: u64, item: u64, payload: &[u8]) {
        self.write(Kind::SEND, 0, id, item, peer, payload);
    }

    /// Ask the first model with a chat-completions object; the answer is a RESULT with this `id`.
    pub fn infer(&mut self, id: u64, item: u64, request: &str) {
        self.write(Kind::INFER, 0, id, item, 0, request.as_bytes());
    }

    /// A line of the log; level 0 debug, 1 info, 2 warning, 3 error.
    pub fn log(&mut self, level: u64, item: u64, text: &str) {
        self.write(Kind::LOG, 0, level, item, NOBODY, text.as_bytes());
    }

    fn turn(&mut self) -> usize {
        let mut got = self.call();
        self.out.clear(); // Taken, even if the answer is that it needs more room.
        if got < 0 {
            self.events.resize(got.unsigned_abs() as usize, 0);
            got = self.call();
        }
        usize::try_from(got).expect("room enough")
    }

    fn call(&mut self) -> i32 {
        let (out, events) = (&self.out, &mut self.events);
        // SAFETY: the host reads and writes what is said here, and nothing after it has returned.
        unsafe {
            turn(
                out.as_ptr(),
                out.len() as u32,
                events.as_mut_ptr(),
                events.len() as u32,
            )
        }
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.events[at..at + N].try_into().expect("a whole header")
    }
}
