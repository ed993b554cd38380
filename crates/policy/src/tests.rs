//! Stories: what people see, told with virtual workers and virtual time.

mod adoption;
mod ahead;
mod batches;
mod chaos;
mod chats;
mod choice;
mod endings;
mod evictions;
mod fairness;
mod foresight;
mod launches;
mod laws;
mod levels;
mod make;
mod nonsense;
mod pauses;
mod rig;
mod seed_4;
mod shown;
mod single_lock;
mod slots;
mod states;
mod turns;
mod weighing;
mod wide;
mod yields;
