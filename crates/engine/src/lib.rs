//! The hands of gpuspool: start, probe, drive and stop one program.
