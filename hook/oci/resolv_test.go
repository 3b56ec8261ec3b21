package oci

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/testenv"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// resolvLab is a container in the stage createContainer, and a network with a name server.
type resolvLab struct{ dir, root, networks, leased string }

func newResolvLab(t *testing.T) *resolvLab {
	t.Helper()
	w := &resolvLab{dir: t.TempDir()}
	w.root, w.networks = filepath.Join(w.dir, "rootfs"), filepath.Join(w.dir, "networks.d")
	must(t, os.MkdirAll(filepath.Join(w.root, "etc"), 0o755))
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: network.DriverMacvlan, Parent: "eth0", Mode: network.ModeBridge,
		Subnets: []network.Subnet{{Subnet: netip.MustParsePrefix("192.168.50.0/24")}},
		DNS: []netip.Addr{
			netip.MustParseAddr("192.168.50.1"),
			netip.MustParseAddr("fd50::1"),
		}, DNSSearch: []string{"lab.example"},
	}
	must(t, def.Validate())
	must(t, def.Create(w.networks))
	w.config(t, nil)
	return w
}

func (w *resolvLab) config(t *testing.T, mounts []specs.Mount) {
	t.Helper()
	text, err := json.Marshal(specs.Spec{Root: &specs.Root{Path: "rootfs"}, Mounts: mounts})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.dir, "config.json"), text, 0o600))
}

// read runs GiveResolvConf in a new mount namespace, after the prepare functions, and returns the
// resolv.conf that the container reads.
func (w *resolvLab) read(prepare ...func() error) (text string, err error) {
	err = testenv.OnThread(func() error {
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			return err
		}
		for _, p := range prepare {
			if err := p(); err != nil {
				return err
			}
		}
		s := &specs.State{ID: "c1", Bundle: w.dir, Annotations: map[string]string{"io.lanyard.network": "web"}}
		if err := GiveResolvConf(w.networks, w.leased, s); err != nil {
			return err
		}
		if err := errors.Join(unix.Chroot(w.root), unix.Chdir("/")); err != nil {
			return err
		}
		b, err := os.ReadFile(resolvPath)
		text = string(b)
		return err
	})
	return text, err
}

// TestResolvConfLeased checks that the names of a DHCP server and of a router reach a container of its
// namespace, where the definition has none.
func TestResolvConfLeased(t *testing.T) {
	w := newResolvLab(t)
	w.leased = filepath.Join(w.dir, "names")
	here := func(edit func(*hook.Attachment)) {
		var st unix.Stat_t
		must(t, unix.Stat("/proc/self/ns/net", &st))
		a := hook.Attachment{Network: "web", Netns: hook.Netns{Inode: st.Ino}, DHCP: &dhcp.Lease{
			Resolver: ipam.Resolver{
				DNS: []netip.Addr{netip.MustParseAddr("192.168.50.5")}, Search: []string{"leased.example"},
			},
		}}
		edit(&a)
		must(t, a.WriteNames(w.leased))
	}
	def, err := network.Load(w.networks, "web")
	must(t, err)
	def.IPAM, def.Subnets, def.DNS = network.IPAMDHCP, nil, nil
	must(t, network.Remove(w.networks, "web"))
	must(t, def.Create(w.networks))
	for _, c := range []struct {
		name string
		edit func(*hook.Attachment)
		want string
	}{
		{"another namespace", func(a *hook.Attachment) { a.Netns.Inode++ }, "# lanyard: web\nsearch lab.example\n"},
		{"another network", func(a *hook.Attachment) { a.Network, a.ID[0] = "db", 1 },
			"# lanyard: web\nsearch lab.example\n"},
		{"its own", func(*hook.Attachment) {}, "# lanyard: web\nsearch lab.example\nnameserver 192.168.50.5\n"},
		{"also a router's", func(a *hook.Attachment) {
			a.SLAAC = &hook.SLAAC{Resolver: ipam.Resolver{DNS: []netip.Addr{netip.MustParseAddr("fe80::53%eth0")}}}
		}, "# lanyard: web\nsearch lab.example\nnameserver 192.168.50.5\nnameserver fe80::53%eth0\n"},
		{"no names any more", func(a *hook.Attachment) { a.DHCP.DNS, a.DHCP.Search = nil, nil },
			"# lanyard: web\nsearch lab.example\n"},
	} {
		here(c.edit)
		if got, err := w.read(); err != nil || got != c.want {
			t.Errorf("%s: the container reads %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

const wantResolv = "# lanyard: web\nsearch lab.example\nnameserver 192.168.50.1\nnameserver fd50::1\n"

func TestResolvConf(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for name, prepare := range map[string]func(etc string) error{
		"none in the image": func(string) error { return nil },
		"one in the image": func(
			etc string) error {
			return os.WriteFile(etc+"/resolv.conf", []byte("nameserver 1.1.1.1\n"), 0o644)
		},
		"a link that leads nowhere": func(etc string) error {
			return os.Symlink("../run/systemd/resolve/stub-resolv.conf", etc+"/resolv.conf")
		},
		"a link inside the image": func(etc string) error {
			return errors.Join(os.WriteFile(etc+"/real", nil, 0o644), os.Symlink("/etc/real", etc+"/resolv.conf"))
		},
		"a link to a file of the host's": func(etc string) error { return os.Symlink(secret, etc+"/resolv.conf") },
		"a link out of the image": func(etc string) error {
			return os.Symlink(strings.Repeat("../", 30)+secret, etc+"/resolv.conf")
		},
		"no /etc": func(etc string) error { return os.Remove(etc) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newResolvLab(t)
			must(t, prepare(filepath.Join(w.root, "etc")))
			if got, err := w.read(); err != nil || got != wantResolv {
				t.Errorf("the container reads %q, %v", got, err)
			}
			if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
				t.Errorf("the host's file is %q, %v", text, err)
			}
		})
	}
}

// TestResolvConfOnBusyHost checks that mounts by other processes do not fail a path with "..".
func TestResolvConfOnBusyHost(t *testing.T) {
	w := newResolvLab(t)
	must(t, os.MkdirAll(filepath.Join(w.root, "run/systemd/resolve"), 0o755))
	must(t, os.WriteFile(filepath.Join(w.root, "run/systemd/resolve/stub-resolv.conf"), nil, 0o644))
	must(t, os.Symlink(strings.Repeat("../run/", 15)+"../run/systemd/resolve/stub-resolv.conf", w.root+"/etc/resolv.conf"))
	stop, mounts := make(chan struct{}), make(chan error, 1)
	go func() { mounts <- testenv.OnThread(func() error { return mountUntil(stop, t.TempDir()) }) }()
	for range 2000 {
		fd, err := openResolvPath(w.root)
		if err != nil {
			t.Error(err)
			break
		}
		unix.Close(fd)
	}
	close(stop)
	must(t, <-mounts)
}

// mountUntil mounts and unmounts in a mount namespace of its own until stop is closed.
func mountUntil(stop <-chan struct{}, dir string) error {
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	}
}

// TestResolvConfKeepsImage checks that the file in the image is unchanged after the container.
func TestResolvConfKeepsImage(t *testing.T) {
	w := newResolvLab(t)
	path := filepath.Join(w.root, "etc/resolv.conf")
	must(t, os.WriteFile(path, []byte("mine"), 0o644))
	if _, err := w.read(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the image has %q, %v", text, err)
	}
}

func TestResolvConfRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(w *resolvLab) error
		want    string
	}{
		"a FIFO":      {func(w *resolvLab) error { return unix.Mkfifo(w.root+"/etc/resolv.conf", 0o644) }, "regular file"},
		"a directory": {func(w *resolvLab) error { return os.Mkdir(w.root+"/etc/resolv.conf", 0o755) }, "regular file"},
		"/etc leads to the host's": {func(w *resolvLab) error {
			return errors.Join(os.Remove(w.root+"/etc"), os.Symlink("/usr", w.root+"/etc"))
		}, "resolv.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newResolvLab(t)
			must(t, c.prepare(w))
			if got, err := w.read(); err == nil || !strings.Contains(err.Error(), c.want) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("read %q, %v; want %q", got, err, c.want)
			}
		})
	}
	w := newResolvLab(t)
	must(t, errors.Join(os.Mkdir(w.root+"/proc", 0o755), os.Symlink("/proc/1/attr/exec", w.root+"/etc/resolv.conf")))
	proc := func() error { return unix.Mount("proc", w.root+"/proc", "proc", 0, "") }
	if got, err := w.read(proc); err == nil || !strings.Contains(err.Error(), "a file of procfs or sysfs") {
		t.Errorf("a link into /proc: read %q, %v", got, err)
	}
	w = newResolvLab(t)
	readOnly := func() error {
		return errors.Join(
			unix.Mount(w.root, w.root, "", unix.MS_BIND, ""),
			unix.Mount("", w.root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		)
	}
	if _, err := w.read(readOnly); err == nil || !strings.Contains(err.Error(), "-v FILE:/etc/resolv.conf") {
		t.Errorf("a read-only root: %v", err)
	}
}

// TestResolvConfOfEngine checks that a resolv.conf that the engine mounts is kept.
func TestResolvConfOfEngine(t *testing.T) {
	w := newResolvLab(t)
	w.config(t, []specs.Mount{{Destination: "/etc/resolv.conf", Type: "bind", Source: "/run/x"}})
	must(t, os.WriteFile(filepath.Join(w.root, "etc/resolv.conf"), []byte("engine"), 0o644))
	if got, err := w.read(); err != nil || got != "engine" {
		t.Errorf("the container reads %q, %v", got, err)
	}
}
