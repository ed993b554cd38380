//! The OpenAI shapes: what is asked ([`request`]), what is answered ([`reply`]), what is refused ([`refusal`]).
//!
//! Only shapes and their checks: no HTTP server, no model.

pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod request;
