//! A worker as a process, and a brain played by the test: orders go in, reports and records come out.

mod birth;
mod engines;
mod life;
mod rig;
mod scripts;
mod yields;
