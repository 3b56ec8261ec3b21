package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// resolvPath is the path of the resolver's configuration in a container (resolv.conf(5)).
const resolvPath = "/etc/resolv.conf"

// maxConfig is the maximum size of a container's config.json, in bytes.
const maxConfig = 16 << 20

// GiveResolvConf mounts a resolv.conf with the name servers of the container's networks over the
// one of its image. It is for the stage createContainer: the hook is then in the container's
// mount namespace, and still sees the host's files. networks is the directory of the definitions,
// and leased that of hook.ReadNames.
// It does nothing if no network has name servers or search domains, or if the engine mounts its
// own resolv.conf. It needs no privilege on the host, no service and no pid: every user can read
// the definitions.
//
// The image is hostile: a symbolic link in it can point to a file of the host or of the user.
func GiveResolvConf(networks, leased string, s *specs.State) error {
	wants, ours, err := decodeWants(s)
	if err != nil || !ours {
		return err
	}
	names, err := namesHere(leased)
	if err != nil {
		return fmt.Errorf("read the name servers of container %q: %w", s.ID, err)
	}
	text, err := resolvText(networks, names, wants)
	if err != nil || text == "" {
		return err
	}
	spec, err := readSpec(s.Bundle)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == resolvPath }) {
		return nil
	}
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(s.Bundle, root)
	}
	if err := bindResolvConf(root, s.Bundle, text); err != nil {
		return fmt.Errorf("mount %s of container %q: %w", resolvPath, s.ID, err)
	}
	return nil
}

// namesHere returns the names that DHCP servers and routers have given to the interfaces of this process's network
// namespace, which is the container's.
func namesHere(leased string) ([]hook.Names, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return nil, err
	}
	return hook.ReadNames(leased, st.Ino)
}

// NamesServers reports whether a network of the container has name servers or search domains, or may
// get them from a DHCP server or a router.
func NamesServers(networks string, s *specs.State) (bool, error) {
	wants, _, err := decodeWants(s)
	if err != nil {
		return false, err
	}
	for _, w := range wants {
		if def, err := network.Load(networks, w.Network); err == nil && def.LearnsNames() {
			return true, nil
		}
	}
	text, err := resolvText(networks, nil, wants)
	return text != "", err
}

// resolvText returns the text of resolv.conf, or "" if no network has name servers or search
// domains. Those of a definition come before those that the LAN has given.
func resolvText(networks string, leased []hook.Names, wants []hook.Want) (string, error) {
	var servers, search, names []string
	for _, w := range wants {
		def, err := network.Load(networks, w.Network)
		if err != nil {
			return "", err
		}
		names = append(names, def.Name)
		r := hook.ResolverOf(def, leased...)
		for _, a := range r.DNS {
			servers = append(servers, "nameserver "+a.String()+"\n")
		}
		search = append(search, r.Search...)
	}
	if len(servers)+len(search) == 0 {
		return "", nil
	}
	text := "# lanyard: " + strings.Join(names, ", ") + "\n"
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	return text + strings.Join(servers, ""), nil
}

// readSpec reads the config.json of a bundle. It returns an error if the file names no root.
func readSpec(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the container's configuration: %w", err)
	}
	defer f.Close()
	var spec specs.Spec
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&spec); err != nil {
		return nil, fmt.Errorf("read the container's configuration %s: %w", f.Name(), err)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return nil, fmt.Errorf("read the container's configuration %s: it has no root", f.Name())
	}
	return &spec, nil
}

// bindResolvConf writes the text to a file in the bundle and bind-mounts it over the file in the
// root, so that the image stays unchanged.
func bindResolvConf(root, bundle, text string) error {
	source, err := writeToBundle(bundle, text)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openResolvPath(root)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	// By descriptor: no other process can replace either file before the mount.
	from, to := fmt.Sprintf("/proc/self/fd/%d", source.Fd()), fmt.Sprintf("/proc/self/fd/%d", target)
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind-mount: %w", err)
	}
	return nil
}

// writeToBundle writes the text to a file in the bundle. The runtime or engine removes the bundle
// after the container has ended.
func writeToBundle(bundle, text string) (*os.File, error) {
	path := filepath.Join(bundle, "lanyard-resolv.conf")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	// The umask may have removed the permissions that other users of the container need.
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// insideRoot makes openat2(2) resolve symbolic links as in a chroot, and refuse magic links
// (/proc/self/root), which lead out of one.
const insideRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openInside opens a path below the root that dir is open on, with the given flags and O_CLOEXEC.
// openat2(2) fails with EAGAIN on a path with ".." while any process of the host mounts or renames,
// because the kernel cannot tell then whether ".." led out of the root. So it is tried again.
func openInside(dir int, path string, flags uint64) (fd int, err error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: insideRoot}
	for range 1000 {
		fd, err = unix.Openat2(dir, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return fd, fmt.Errorf("other processes rename or mount without a pause: %w: start the container again", err)
}

// openResolvPath opens the file to mount over, resolving its path as the container would, and
// returns an O_PATH descriptor. It creates a missing file, empty. It returns an error if
// the path leads to anything but a regular file of a real file system.
func openResolvPath(root string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open root %q: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := openInside(dir, resolvPath, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		fd, err = createResolvPath(dir)
	}
	switch {
	case errors.Is(err, unix.EROFS):
		return 0, errors.New("the image has no such file, and its root is read-only: " +
			"add an empty file to the image, or mount one (-v FILE:/etc/resolv.conf)")
	case err != nil:
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return 0, errors.Join(err, errors.New("the image has something other than a regular file at this path"))
	}
	// The container's own /proc is mounted by now. Runtimes write to it, such as the label of the
	// container's processes, and must not write to Lanyard's file instead.
	var on unix.Statfs_t
	if err := unix.Fstatfs(fd, &on); err != nil || on.Type == unix.PROC_SUPER_MAGIC || on.Type == unix.SYSFS_MAGIC {
		unix.Close(fd)
		return 0, errors.Join(err, errors.New("the image's path leads to a file of procfs or sysfs"))
	}
	return fd, nil
}

// createResolvPath creates an empty file in the root that dir is open on. It replaces a symbolic
// link to a target that does not exist.
func createResolvPath(dir int) (int, error) {
	etc, err := openInside(dir, "/etc", unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdirat(dir, "etc", 0o755); err == nil {
			etc, err = openInside(dir, "/etc", unix.O_PATH|unix.O_DIRECTORY)
		}
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(etc)
	name := filepath.Base(resolvPath)
	if err := unix.Unlinkat(etc, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, err
	}
	return unix.Openat(etc, name, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
}
