package journal

// kinds are the MESSAGE_IDs of events, by the message that is logged. docs/monitoring.md lists them: a
// message may get other words, its id stays.
var kinds = map[string]string{
	"attached":                         "079e866fac9842d5b2107fddc08695ce",
	"detached":                         "ff0e008c24624ccdb8e0bde3b20b4a5c",
	"failed":                           "8a82d04cbe25426e8e7471606f40dd89", // an attach, also with a fatal verdict
	"refused":                          "6c64cd3da2c241fd95b65a502f062a70", // a caller that no network authorizes
	"swept":                            "03dae23da2a24f0081f2588ebdbb9be4",
	"a container has lost its address": "8b6846621ad84631b82c5454420464cc",
	"a container has a new lease":      "5c43cc0c3580411ab2447ab9962ec087",
	"a verdict has changed":            "9b94978aebe74a688d898c2849d41c66", // of a container that runs
	"could not renew the lease of a container":                       "2c8408917e8448b78e9f1bdc4297598a",
	"another host has an address of a running container":             "95e2e57656d449a7a37fe5646ce5cf58",
	"announced containers: their trunk moved to another switch port": "287866ce5ad0448b92d6a48cf4108bab",
	"a container of Docker runs off the LAN":                         "3d946848b47d4e1cae74efbe04d0c6b0",
	"no session for leases: no container gets an address from etcd":  "670187329d654d89a63ed3a341fb7a6e",
}
