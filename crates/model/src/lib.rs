//! THE WORDS: types on disk and on the wire, their validation, their JSON Schemas.
//!
//! Everything that two programs must agree on stands here and nowhere else. There is no behaviour beyond reading,
//! checking and folding: no clock is read, no file is opened, no decision is taken.

pub mod batch;
pub mod config;
pub mod explained;
pub mod fault;
pub mod gpu;
pub mod gpu_reason;
pub mod id;
pub mod json;
pub mod kind;
pub mod learned;
pub mod link;
pub mod picture;
pub mod reason;
pub mod request;
pub mod saying;
pub mod schema;
pub mod task;
pub mod time;
pub mod validate;

pub use config::Config;
pub use fault::{Code, Fault};
pub use gpu_reason::GpuReason;
pub use id::{AttemptKey, BatchId, GpuUuid, TaskId, WorkerId};
pub use kind::{
    Durability, FailureClass, GpuMode, GpuState, Health, InventorySource, Mode, Priority, Status, TaskClass,
    TaskType,
};
pub use reason::Reason;
pub use saying::Saying;
pub use task::{Entry, Task, TaskError, TaskRecord, TaskResult};
pub use time::{Millis, Timestamp};
