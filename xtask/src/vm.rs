//! `cargo xtask test-kernel`: runs the packet tests and selected network tests on the oldest supported kernel, in an
//! emulated machine.
//!
//! The machine boots Debian's kernel, with a root file system that contains the test programs and their dependencies.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{build, cargo, workspace},
    run::{print_step, run_silently},
    setup::{self, MIN_KERNEL},
};

/// Programs that the tests call inside the machine.
const GUEST_PROGRAMS: &[&str] = &["ip", "ethtool", "ping", "ss", "cat"];

/// Test programs to run in the machine, with their arguments. Tests are skipped that are slow under emulation and use
/// no further kernel features.
const TESTS: &[(&str, &[&str])] = &[
    (
        "packets",
        &[
            "--test-threads=2",
            "--skip",
            "malformed",
            "--skip",
            "nat::",
            "--skip",
            "invariants::",
            "--skip",
            "corpus::",
            "--skip",
            "flow_gc::",
        ],
    ),
    (
        "families",
        &["--test-threads=1", "datagrams", "ping", "refused"],
    ),
    ("flow_termination", &["--test-threads=1", "revocation"]),
];

/// Prefix of the last line that the machine prints.
const RESULT_MARKER: &str = "all tests on this kernel: ";

/// Time limit, longer than the tests take on a slow machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(1_500);

/// Runs the tests in the machine.
pub(crate) fn test() -> Result<()> {
    setup::kernel_programs()?;
    let directory = workspace()?.join("target/kernel");
    fs::create_dir_all(&directory)?;
    let kernel = find_kernel(&directory)?;
    let binary = build(false)?;
    let image = build_initramfs(&directory, &kernel, &binary)?;
    let release = kernel.release();
    print_step(&format!("running the tests on Linux {release}, emulated"));
    boot(&kernel.image, &image)
}

/// Kernel, unpacked from its package.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn release(&self) -> String {
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches("vmlinuz-").to_owned()
    }
}

/// Returns Debian's kernel of the oldest supported version. Downloads it if it is not there.
fn find_kernel(directory: &Path) -> Result<Kernel> {
    let unpacked = directory.join("unpacked");
    if let Some(kernel) = kernel_of_unpacked_package(&unpacked) {
        return Ok(kernel);
    }
    print_step(&format!("downloading Debian's Linux {MIN_KERNEL}"));
    let names = run_silently(
        Command::new("apt-cache")
            .args(["search", "--names-only"])
            .arg(format!(
                "^linux-image-{MIN_KERNEL}.[0-9]+-[0-9]+-cloud-amd64$"
            )),
    )?;
    let number = |name: &&str| -> u32 {
        let mut parts = name.split('-');
        parts.nth(3).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let names = names.lines().filter_map(|line| line.split(' ').next());
    let package = names.max_by_key(number).with_context(|| {
        format!(
            "the package lists contain no cloud kernel of Linux {MIN_KERNEL}: \
                 run `apt-get update`, or add a release with it"
        )
    })?;
    let downloads = directory.join("download");
    fs::create_dir_all(&downloads)?;
    run_silently(
        Command::new("apt-get")
            .args(["download", "-q", package])
            .current_dir(&downloads),
    )?;
    for file in fs::read_dir(&downloads)? {
        let file = file?.path();
        run_silently(Command::new("dpkg").arg("-x").args([&file, &unpacked]))?;
    }
    kernel_of_unpacked_package(&unpacked).with_context(|| format!("{package} contains no kernel"))
}

fn kernel_of_unpacked_package(unpacked: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(unpacked.join("boot")).ok()?;
    let image = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz-")
        })?;
    Some(Kernel {
        image,
        modules: unpacked.join("lib/modules"),
    })
}

/// Builds the test programs and returns their names and paths.
fn test_programs() -> Result<Vec<(String, PathBuf)>> {
    print_step("building the tests");
    let mut command = cargo()?;
    // The same arguments as `cargo xtask test`, so that nothing is built twice.
    command.args(["test", "--locked", "--no-run"]);
    let text = run_silently(&mut command)?;
    let programs = text.lines().filter_map(|line| {
        let path = line.trim().strip_prefix("Executable ")?;
        let path = path.split_once('(')?.1.trim_end_matches(')');
        let path = workspace().ok()?.join(path);
        let name = path.file_name()?.to_string_lossy().into_owned();
        let name = name.rsplit_once('-')?.0.to_owned();
        Some((name, path))
    });
    Ok(programs.collect())
}

/// Root file system of the machine.
struct Root(PathBuf);

impl Root {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        for directory in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(path.join(directory))?;
        }
        Ok(Self(path))
    }

    /// Adds a program, stripped of debugging information, and its shared libraries.
    fn add(&self, program: &Path, name: &str) -> Result<()> {
        let target = self.0.join("bin").join(name);
        run_silently(Command::new("strip").arg("-o").args([&target, program]))?;
        let libraries = Command::new("ldd").arg(program).output()?;
        let text = String::from_utf8_lossy(&libraries.stdout).into_owned();
        let libraries: BTreeSet<&str> = text
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .collect();
        for library in libraries {
            let target = self.0.join(library.trim_start_matches('/'));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(library, target)?;
        }
        Ok(())
    }
}

/// Returns the init script: mounts file systems, runs the tests and powers the machine off.
fn init_script() -> String {
    let mut script = "#!/bin/busybox sh
export PATH=/bin RUST_BACKTRACE=0 PLGW_BIN=/bin/plgw PLGW_TEST_PATIENCE=10
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns
mount -t bpf bpf /sys/fs/bpf
/bin/ip link set lo up
insmod /modules/veth.ko
uname -r
outcome=passed
"
    .to_owned();
    for (program, filters) in TESTS {
        let filters = filters.join(" ");
        script.push_str(&format!(
            "/bin/{program} --nocapture {filters} || outcome=FAILED\n"
        ));
    }
    script.push_str(&format!(
        "echo \"{RESULT_MARKER}$outcome\"\nsync\npoweroff -f\n"
    ));
    script
}

/// Builds the image of the root file system.
fn build_initramfs(directory: &Path, kernel: &Kernel, binary: &Path) -> Result<PathBuf> {
    let root = Root::new(directory.join("root"))?;
    let programs = test_programs()?;
    for (name, _) in TESTS {
        let (_, path) = programs
            .iter()
            .find(|(found, _)| found == name)
            .with_context(|| format!("the test program {name} was not built"))?;
        root.add(path, name)?;
    }
    root.add(binary, "plgw")?;
    let search = env::var_os("PATH").unwrap_or_default();
    for name in GUEST_PROGRAMS {
        let found = env::split_paths(&search)
            .chain(["/sbin".into(), "/usr/sbin".into()])
            .map(|directory| directory.join(name))
            .find(|path| path.exists());
        root.add(
            &found.with_context(|| {
                format!("the program {name} is not installed: run `cargo xtask setup`")
            })?,
            name,
        )?;
    }
    fs::copy("/bin/busybox", root.0.join("bin/busybox"))
        .context("busybox-static is not installed")?;
    let veth = run_silently(
        Command::new("find")
            .arg(&kernel.modules)
            .args(["-name", "veth.ko"]),
    )?;
    fs::copy(veth.trim(), root.0.join("modules/veth.ko"))
        .context("the kernel package has no veth module")?;
    let init = root.0.join("init");
    fs::write(&init, init_script())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let image = directory.join("root.cpio");
    let files = run_silently(Command::new("find").arg(".").current_dir(&root.0))?;
    let mut cpio = Command::new("cpio")
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(&root.0)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&image)?)
        .spawn()
        .context("cpio can't be run")?;
    let mut input = cpio.stdin.take().context("cpio has no standard input")?;
    input.write_all(files.as_bytes())?;
    drop(input);
    if !cpio.wait()?.success() {
        bail!("cpio failed");
    }
    Ok(image)
}

/// Boots the machine and prints its output. Fails unless all tests passed.
fn boot(kernel: &Path, image: &Path) -> Result<()> {
    let mut machine = Command::new("qemu-system-x86_64")
        // Software emulation (TCG): hardware virtualization is not available everywhere, and nested it may hang.
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
        ])
        .args(["-nographic", "-no-reboot", "-net", "none"])
        .args(["-append", "console=ttyS0 panic=1 quiet"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-x86_64 can't be run")?;
    let output = machine
        .stdout
        .take()
        .context("the machine has no console")?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut passed = false;
    loop {
        let left = BOOT_TIMEOUT.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                let line = line.trim_end();
                println!("  {line}");
                if let Some(outcome) = line.strip_prefix(RESULT_MARKER) {
                    passed = outcome == "passed";
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                machine.kill()?;
                machine.wait()?;
                bail!(
                    "the tests in the machine took longer than {} s",
                    BOOT_TIMEOUT.as_secs()
                );
            }
        }
    }
    machine.wait()?;
    if !passed {
        bail!("the tests failed on Linux {MIN_KERNEL}");
    }
    Ok(())
}
