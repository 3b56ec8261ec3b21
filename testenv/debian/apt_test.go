package debian

import (
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
