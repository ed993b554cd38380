//! Stories: what people see, told with virtual workers and virtual time.

mod adoption;
mod batches;
mod chaos;
mod choice;
mod endings;
mod evictions;
mod launches;
mod laws;
mod make;
mod nonsense;
mod pauses;
mod rig;
mod shown;
mod states;
