package hostid

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	one = "0123456789abcdef0123456789abcdef"
	two = "fedcba9876543210fedcba9876543210"
)

// files returns files with the given contents; "" leaves a file out.
func files(t *testing.T, own, machine string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Own: filepath.Join(dir, "etc", "host-id"), Machine: filepath.Join(dir, "machine-id")}
	for name, text := range map[string]string{f.Own: own, f.Machine: machine} {
		if text == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func load(t *testing.T, f Files) ID {
	t.Helper()
	id, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestMachineID(t *testing.T) {
	a := load(t, files(t, "", one+"\n"))
	if a != load(t, files(t, "", one)) {
		t.Error("the same machine id gives two identities")
	}
	if a == load(t, files(t, "", two)) {
		t.Error("two machine ids give the same identity")
	}
	if strings.Contains(string(a[:]), "\x01\x23\x45\x67") {
		t.Error("the identity shows the machine id")
	}
}

func TestOwnFileComesFirst(t *testing.T) {
	if load(t, files(t, two, one)) != load(t, files(t, "", two)) {
		t.Error("the host-id file does not come before the machine id")
	}
}

// An invalid machine id leads to a random identity, which is kept.
func TestNoMachineID(t *testing.T) {
	for _, text := range []string{"", "\n", "uninitialized\n", "00000000000000000000000000000000\n", one[1:],
		one + "0", strings.Repeat("g", 32), one + "\n\n"} {
		f := files(t, "", text)
		id := load(t, f)
		if id != load(t, f) {
			t.Errorf("machine id %q: the random identity is not kept", text)
		}
		if id == load(t, files(t, "", text)) {
			t.Errorf("machine id %q: two hosts have the same identity", text)
		}
		info, err := os.Stat(f.Own)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("machine id %q: mode %v, error %v", text, info.Mode(), err)
		}
	}
}

func TestCreatedOnce(t *testing.T) {
	f := files(t, "", "")
	var group sync.WaitGroup
	ids := make([]ID, 8)
	for i := range ids {
		group.Go(func() { ids[i], _ = f.Load() })
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] || id == (ID{}) {
			t.Fatalf("processes that start at once have the identities %x", ids)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(f.Own), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestErrors(t *testing.T) {
	bad := files(t, "no digits\n", one)
	if _, err := bad.Load(); err == nil || !strings.Contains(err.Error(), bad.Own) ||
		!strings.Contains(err.Error(), "32 hexadecimal digits") {
		t.Errorf("an unreadable host-id file: %v", err)
	}
	f := files(t, "", "")
	f.Own = "/proc/lanyard/host-id" // no directory can be made there
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "systemd-machine-id-setup") {
		t.Errorf("nowhere to write: %v", err)
	}
}
