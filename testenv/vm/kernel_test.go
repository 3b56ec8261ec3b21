package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
