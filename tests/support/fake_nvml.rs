//! An NVML that knows only what a small text file says, so that tests can plug, fill, break and pull GPUs.
//!
//! The file is named by `FAKE_NVML_STATE`; without that it is `gpus.txt` beside the library, so that copies of the
//! library in different folders are different machines within one process. It is read anew at every call:
//!
//! ```text
//! init 9                                  nvmlInit returns 9 (driver not loaded)
//! gpu uuid=GPU-a name=RTX_4070 total=12227 used=300 cc=8.9 processes=4711:280,4712:none
//! gpu uuid=GPU-b return=15                the handle call returns 15 (GPU lost)
//! gpu uuid=GPU-c memory=3                 the memory call returns 3 (not supported)
//! ```
//!
//! Sizes are MiB, `_` in a name is a space. What is not given: no processes, and `not supported` for the rest.
//! Only the calls that this project makes exist; another one is a missing symbol, as with an old driver.

#![expect(unsafe_code, reason = "NVML is a C library: its functions are exported and take pointers")]

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::PathBuf;

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const INSUFFICIENT_SIZE: c_int = 7;
const MIB: u64 = 1 << 20;
/// NVML's way of saying that a process's memory is not known.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Process {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// The values of one `gpu` line.
struct Gpu {
    words: Vec<(String, String)>,
}

impl Gpu {
    fn text(&self, key: &str) -> Option<&str> {
        self.words.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    fn code(&self, key: &str) -> c_int {
        self.text(key).and_then(|code| code.parse().ok()).unwrap_or(SUCCESS)
    }
}

fn state() -> String {
    let file = std::env::var_os("FAKE_NVML_STATE").map(PathBuf::from).or_else(beside_the_library);
    file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
}

/// `gpus.txt` in the folder this library was loaded from, which the kernel knows.
fn beside_the_library() -> Option<PathBuf> {
    let here = nvmlInit_v2 as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let ends = line.split(' ').next().and_then(|range| range.split_once('-'));
        ends.is_some_and(|(from, to)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(from)..number(to)).contains(&here)
        })
    })?;
    Some(PathBuf::from(&line[line.find('/')?..]).with_file_name("gpus.txt"))
}

fn gpus() -> Vec<Gpu> {
    let words = |line: &str| {
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        Gpu { words: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    };
    state().lines().filter_map(|line| line.strip_prefix("gpu ")).map(words).collect()
}

/// Handles are indexes plus one, so that none is null.
fn with_gpu(device: *mut c_void, answer: impl FnOnce(&Gpu) -> c_int) -> c_int {
    let gpus = gpus();
    match (device as usize).checked_sub(1).and_then(|index| gpus.get(index)) {
        Some(gpu) => match gpu.code("return") {
            SUCCESS => answer(gpu),
            code => code,
        },
        None => INVALID_ARGUMENT,
    }
}

/// Copies `bytes` with a final NUL to where the caller has room for `length` of them.
unsafe fn give_text(bytes: &[u8], to: *mut c_char, length: c_uint) -> c_int {
    if bytes.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller owns `length` bytes at `to`, and the text with its NUL is not longer.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len());
        to.add(bytes.len()).write(0);
    }
    SUCCESS
}

/// Starts the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    let state = state();
    let code = state.lines().find_map(|line| line.strip_prefix("init ")?.trim().parse().ok());
    code.unwrap_or(SUCCESS)
}

/// Ends it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

/// The driver's version.
///
/// # Safety
/// `version` points to `length` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { give_text(b"0.0.fake", version, length) }
}

/// How many GPUs there are.
///
/// # Safety
/// `count` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { count.write(gpus().len().try_into().unwrap_or(c_uint::MAX)) };
    SUCCESS
}

/// The GPU at an index.
///
/// # Safety
/// `device` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut *mut c_void) -> c_int {
    let handle = (index as usize + 1) as *mut c_void;
    with_gpu(handle, |_| {
        // SAFETY: as promised by the caller.
        unsafe { device.write(handle) };
        SUCCESS
    })
}

/// A GPU's product name; `GARBAGE` gives bytes that are no text.
///
/// # Safety
/// `name` points to `length` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: *mut c_void, name: *mut c_char, length: c_uint) -> c_int {
    with_gpu(device, |gpu| match gpu.text("name") {
        // SAFETY (all three): as promised by the caller.
        Some("GARBAGE") => unsafe { give_text(b"\xff\xfe\x1b[31m", name, length) },
        Some(text) => unsafe { give_text(text.replace('_', " ").as_bytes(), name, length) },
        None => NOT_SUPPORTED,
    })
}

/// A GPU's uuid.
///
/// # Safety
/// `uuid` points to `length` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: *mut c_void, uuid: *mut c_char, length: c_uint) -> c_int {
    with_gpu(device, |gpu| match gpu.text("uuid") {
        // SAFETY: as promised by the caller.
        Some(text) => unsafe { give_text(text.as_bytes(), uuid, length) },
        None => NOT_SUPPORTED,
    })
}

/// A GPU's memory.
///
/// # Safety
/// `memory` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: *mut c_void, memory: *mut Memory) -> c_int {
    with_gpu(device, |gpu| {
        let (Some(total), Some(used), SUCCESS) =
            (gpu.number("total"), gpu.number("used"), gpu.code("memory"))
        else {
            return gpu.text("memory").and_then(|code| code.parse().ok()).unwrap_or(NOT_SUPPORTED);
        };
        // SAFETY: as promised by the caller.
        unsafe {
            (*memory).total = total * MIB;
            (*memory).reserved = 0;
            (*memory).used = used * MIB;
            (*memory).free = total.saturating_sub(used) * MIB;
        }
        SUCCESS
    })
}

/// A GPU's compute capability.
///
/// # Safety
/// `major` and `minor` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: *mut c_void,
    major: *mut c_int,
    minor: *mut c_int,
) -> c_int {
    with_gpu(device, |gpu| {
        let parts = gpu.text("cc").and_then(|text| text.split_once('.'));
        let Some((Ok(above), Ok(below))) = parts.map(|(a, b)| (a.parse(), b.parse())) else {
            return NOT_SUPPORTED;
        };
        // SAFETY: as promised by the caller.
        unsafe {
            major.write(above);
            minor.write(below);
        }
        SUCCESS
    })
}

/// A GPU's compute processes.
///
/// # Safety
/// `count` is writable, and `list` points to as many writable entries as it says, or is null if that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    list: *mut Process,
) -> c_int {
    // SAFETY: as promised by the caller.
    with_gpu(device, |gpu| unsafe { give_processes(gpu.text("processes"), count, list) })
}

/// A GPU's graphics processes.
///
/// # Safety
/// As for the compute processes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: *mut c_void,
    count: *mut c_uint,
    list: *mut Process,
) -> c_int {
    // SAFETY: as promised by the caller.
    with_gpu(device, |gpu| unsafe { give_processes(gpu.text("graphics"), count, list) })
}

unsafe fn give_processes(text: Option<&str>, count: *mut c_uint, list: *mut Process) -> c_int {
    let pairs = text.unwrap_or_default().split(',').filter_map(|pair| pair.split_once(':'));
    let found: Vec<(c_uint, c_ulonglong)> = pairs
        .filter_map(|(pid, mib)| {
            let used = mib.parse::<u64>().map_or(NOT_AVAILABLE, |mib| mib * MIB);
            Some((pid.parse().ok()?, used))
        })
        .collect();
    let needed = c_uint::try_from(found.len()).unwrap_or(c_uint::MAX);
    // SAFETY: the caller's `count` says how many entries it has at `list`; no more are written.
    unsafe {
        let room = count.read();
        count.write(needed);
        if room < needed {
            return INSUFFICIENT_SIZE;
        }
        for (at, (pid, used)) in found.into_iter().enumerate() {
            list.add(at).write(Process {
                pid,
                used,
                gpu_instance: c_uint::MAX,
                compute_instance: c_uint::MAX,
            });
        }
    }
    SUCCESS
}
