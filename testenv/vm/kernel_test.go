package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDeriveSources(t *testing.T) {
	tests := map[string]struct{ targets, want string }{
		"debian with security and updates": {
			targets: "http://mirror.example/debian/ bookworm main\nhttp://mirror.example/debian/ bookworm-updates main\n" +
				"http://mirror.example/debian-security/ bookworm-security main\n",
			want: "http://mirror.example/debian/ trixie main\nhttp://mirror.example/debian-security/ trixie-security main\n",
		},
		"repositories of other vendors are left out": {
			targets: "http://tools.example/apt/ stable contrib\nhttp://node.example/ nodistro main\n" +
				"http://mirror.example/debian/ bookworm main\n",
			want: "http://mirror.example/debian/ trixie main\n",
		},
		"another system": {targets: "http://mirror.example/ubuntu/ noble main\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := deriveSources(tt.targets, "trixie")
			if (err != nil) != (tt.want == "") {
				t.Fatalf("error: %v", err)
			}
			got = strings.ReplaceAll(got, "deb [signed-by="+keyring+"] ", "")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.dep", `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/drivers/virtio-mmio.ko:
`)
	write("modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\n")

	order, err := loadOrder(dir, []string{"virtio_pci", "9p", "9pnet_virtio", "virtio_mmio"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range order {
		names = append(names, m.Name)
	}
	if diff := cmp.Diff([]string{"9pnet", "netfs", "9p", "9pnet_virtio", "virtio_mmio"}, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, err := loadOrder(dir, []string{"nosuch"}); err == nil {
		t.Error("no error for a module that the kernel does not have")
	}
}
