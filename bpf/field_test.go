package bpf

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestFields compares what offsetsOf reads from the kernel's BTF with what the library reads.
func TestFields(t *testing.T) {
	text, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	must(t, err)
	got, err := offsetsOf(text, "sk_buff", kernelFields)
	must(t, err)
	spec, err := btf.LoadKernelSpec()
	must(t, err)
	var skb *btf.Struct
	must(t, spec.TypeByName("sk_buff", &skb))
	want := map[string]int{}
	var walk func(members []btf.Member, base btf.Bits)
	walk = func(members []btf.Member, base btf.Bits) {
		for _, m := range members {
			want[m.Name] = int(base + m.Offset)
			if m.Name != "" {
				continue
			}
			switch inner := btf.UnderlyingType(m.Type).(type) {
			case *btf.Struct:
				walk(inner.Members, base+m.Offset)
			case *btf.Union:
				walk(inner.Members, base+m.Offset)
			}
		}
	}
	walk(skb.Members, 0)
	for i, name := range kernelFields {
		if at, ok := want[name]; !ok || at != got[i] {
			t.Errorf("%s is at bit %d, want %d (%v)", name, got[i], at, ok)
		}
	}
	for _, bad := range [][]byte{nil, text[:23], text[:len(text)/2], append([]byte{0}, text...)} {
		if _, err := offsetsOf(bad, "sk_buff", kernelFields); err == nil {
			t.Errorf("%d bytes are BTF", len(bad))
		}
	}
	if _, err := offsetsOf(text, "sk_buff", []string{"nothing"}); err == nil ||
		err.Error() != "struct sk_buff has no nothing" {
		t.Errorf("a field that does not exist: %v", err)
	}
}
