//! An agent that numbers what it gets.
//!
//! items: any
//! emits: {"number": 1, "got": the item}

mod lockstep;

use lockstep::{Agent, Kind};

#[export_name = "main"]
pub extern "C" fn agent() {
    let mut agent = Agent::new();
    let mut number = 0;
    loop {
        let event = agent.recv();
        match event.kind {
            Kind::ITEM => {
                number += 1;
                let got = String::from_utf8_lossy(&event.payload);
                let answer = format!("{{\"number\": {number}, \"got\": {got}}}");
                agent.emit(event.item, answer.as_bytes());
            }
            Kind::CLOSE => return,
            _ => {}
        }
    }
}
