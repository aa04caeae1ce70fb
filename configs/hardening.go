package configs

// Hardening says how far the daemon confines itself.
type Hardening struct {
	// Landlock is auto (as far as the kernel can), required (or refuse to
	// start) or off. [auto]
	Landlock string `yaml:"landlock"`
	// ConnectPorts are TCP ports that it may connect to beyond those of Vault,
	// of confirm, of the proxies in the environment and of DNS. [none]
	ConnectPorts []uint16 `yaml:"connect_ports,omitempty,flow"`
}

// Values of Hardening.Landlock.
const (
	LandlockAuto     = "auto"
	LandlockRequired = "required"
	LandlockOff      = "off"
)

func (v *validator) hardening() {
	h := v.cfg.Hardening
	v.oneOf("hardening.landlock", h.Landlock, LandlockAuto, LandlockRequired, LandlockOff)
	for i, port := range h.ConnectPorts {
		if port == 0 {
			v.fault(at("hardening.connect_ports", i), "0 is no port: write 1 to 65535")
		}
	}
	if h.Landlock == LandlockOff && len(h.ConnectPorts) > 0 {
		v.warn("hardening.connect_ports says nothing with landlock: off")
	}
}
