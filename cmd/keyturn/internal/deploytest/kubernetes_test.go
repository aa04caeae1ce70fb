package deploytest

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type container struct {
	Name            string
	Image           string
	Command, Args   []string
	RestartPolicy   string `yaml:"restartPolicy"`
	SecurityContext struct {
		RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
		RunAsUser                int   `yaml:"runAsUser"`
		RunAsGroup               int   `yaml:"runAsGroup"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop, Add []string }
	} `yaml:"securityContext"`
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe   probe   `yaml:"startupProbe"`
	ReadinessProbe probe   `yaml:"readinessProbe"`
	LivenessProbe  probe   `yaml:"livenessProbe"`
	VolumeMounts   []mount `yaml:"volumeMounts"`
}

type mount struct {
	Name      string
	MountPath string `yaml:"mountPath"`
	SubPath   string `yaml:"subPath"`
	ReadOnly  bool   `yaml:"readOnly"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

type pod struct {
	SecurityContext struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		FSGroup        int                   `yaml:"fsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
	Volumes        []struct {
		Name      string
		ConfigMap struct{ Name string } `yaml:"configMap"`
		Secret    struct {
			SecretName string `yaml:"secretName"`
		}
		EmptyDir map[string]string `yaml:"emptyDir"`
	}
}

func theDeployment(t *testing.T) pod {
	t.Helper()
	var d struct {
		Spec struct{ Template struct{ Spec pod } }
	}
	decode(t, "deploy/kubernetes/deployment.yaml", &d)
	return d.Spec.Template.Spec
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(read(t, file)))
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: more than one document, or no YAML: %v", file, err)
	}
}

func find(t *testing.T, list []container, name string) container {
	t.Helper()
	i := slices.IndexFunc(list, func(c container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no container %s", name)
	}
	return list[i]
}

func TestKubernetesCommandLine(t *testing.T) {
	parse(t, find(t, theDeployment(t).InitContainers, "keyturn").Args)
}

// TestKubernetesRestricted pins what the pod security standard "restricted"
// demands, and a root file system that nobody writes to.
func TestKubernetesRestricted(t *testing.T) {
	p := theDeployment(t)
	if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser != 0 || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("pod: %+v: want what all have in common, and no uid, which only a container has", s)
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
		if !s.RunAsNonRoot || s.RunAsUser == 0 || s.RunAsGroup == 0 {
			t.Errorf("container %s is root, or does not say who it is: %+v", c.Name, s)
		}
		if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("container %s: %+v", c.Name, s)
		}
	}
}

// TestKubernetesConfiguration loads the configuration of the ConfigMap, and
// checks that each path in it is mounted and that ports and probes are its.
func TestKubernetesConfiguration(t *testing.T) {
	cfg := load(t, "deploy/kubernetes/keyturn.yaml")
	c := find(t, theDeployment(t).InitContainers, "keyturn")
	for _, file := range append(files(cfg), c.Args[len(c.Args)-1]) {
		mounted := false
		for _, m := range c.VolumeMounts {
			mounted = mounted || under(file, m.MountPath)
		}
		if !mounted {
			t.Errorf("%s is on no volume of the container", file)
		}
	}
	ports := map[string]int{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, addr := range map[string]string{"public": cfg.Listen.Public.Addr, "status": cfg.Listen.Status.Addr} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host != "" || port != strconv.Itoa(ports[name]) {
			t.Errorf("port %s is %d, the daemon listens on %q", name, ports[name], addr)
		}
	}
	for want, p := range map[string]probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if p.HTTPGet.Path != want || p.HTTPGet.Port != "status" {
			t.Errorf("probe %+v, want %s on the port status", p.HTTPGet, want)
		}
	}
}

// TestKubernetesSocket: the application gets the directory of the sign socket
// and nothing else, and that directory is not the root of an emptyDir.
func TestKubernetesSocket(t *testing.T) {
	cfg, p := load(t, "deploy/kubernetes/keyturn.yaml"), theDeployment(t)
	keyturn, app := find(t, p.InitContainers, "keyturn"), find(t, p.Containers, "app")
	if keyturn.RestartPolicy != "Always" || len(keyturn.Command) > 0 {
		t.Error("keyturn is an init container that never ends: it must be a sidecar (restartPolicy: Always) that runs the image's entry point")
	}
	if len(app.VolumeMounts) != 1 {
		t.Fatalf("the application mounts %+v, want the socket's directory alone", app.VolumeMounts)
	}
	m := app.VolumeMounts[0]
	for _, km := range keyturn.VolumeMounts {
		if km.Name == m.Name && path.Join(km.MountPath, m.SubPath) != path.Dir(cfg.Listen.Sign[0].Path) {
			t.Errorf("the application mounts %s of %s, the socket is %s", m.SubPath, m.Name, cfg.Listen.Sign[0].Path)
		}
	}
	if m.SubPath == "" || !m.ReadOnly || under(cfg.Listen.Admin.Path, path.Dir(cfg.Listen.Sign[0].Path)) {
		t.Errorf("the application's mount %+v shows more than the sign socket", m)
	}
	// The daemon makes the directory of each socket itself, in what is mounted
	// there: never the mount's own root, which is open to all.
	for _, dir := range []string{path.Dir(cfg.Listen.Sign[0].Path), path.Dir(cfg.Listen.Admin.Path)} {
		if !slices.ContainsFunc(keyturn.VolumeMounts, func(m mount) bool { return m.MountPath == path.Dir(dir) }) {
			t.Errorf("nothing is mounted at %s, in which %s is made", path.Dir(dir), dir)
		}
	}
	// The daemon makes its state directory itself, in what is mounted above.
	if !slices.ContainsFunc(keyturn.VolumeMounts, func(m mount) bool { return m.MountPath == path.Dir(cfg.StateDir) }) {
		t.Errorf("nothing is mounted at %s, in which state_dir is made", path.Dir(cfg.StateDir))
	}
}

// TestKubernetesCallers: the application is another user than keyturn, reaches
// the socket through the one group that both are in, and is the only one whom
// the profiles allow.
func TestKubernetesCallers(t *testing.T) {
	cfg, p := load(t, "deploy/kubernetes/keyturn.yaml"), theDeployment(t)
	keyturn, app := find(t, p.InitContainers, "keyturn").SecurityContext, find(t, p.Containers, "app").SecurityContext
	shared := p.SecurityContext.FSGroup
	if app.RunAsUser == keyturn.RunAsUser || app.RunAsGroup == keyturn.RunAsGroup {
		t.Errorf("the application runs as %d:%d, keyturn as %d:%d", app.RunAsUser, app.RunAsGroup, keyturn.RunAsUser, keyturn.RunAsGroup)
	}
	if shared == 0 || shared == keyturn.RunAsGroup || shared == app.RunAsGroup {
		t.Errorf("the shared group %d is somebody's own", shared)
	}
	s := cfg.Listen.Sign[0]
	if gid, err := s.GID(); err != nil || gid != shared || s.FileMode() != 0o660 {
		t.Errorf("the socket has group %d (%v) and mode %s, want the pod's %d and 0660", gid, err, s.Mode, shared)
	}
	for _, profile := range cfg.Profiles {
		for _, a := range profile.Allow {
			if a.Socket != s.Name || a.UID == nil || int(*a.UID) != app.RunAsUser {
				t.Errorf("profile %s allows %+v, want the socket %s and uid %d", profile.Name, a, s.Name, app.RunAsUser)
			}
		}
	}
	if a := cfg.Listen.Admin; a.FileMode()&0o077 != 0 || a.Group != "" || len(a.Allow) > 0 {
		t.Errorf("the admin socket %+v is open to others", a)
	}
}

// TestKubernetesNetwork: anybody reaches the key set, only the monitoring
// reaches the status listener, and nothing else is open.
func TestKubernetesNetwork(t *testing.T) {
	var policy struct {
		Kind string
		Spec struct {
			PodSelector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []struct {
				From []struct {
					NamespaceSelector struct {
						MatchLabels map[string]string `yaml:"matchLabels"`
					} `yaml:"namespaceSelector"`
				}
				Ports []struct {
					Protocol string
					Port     int
				}
			}
		}
	}
	decode(t, "deploy/kubernetes/networkpolicy.yaml", &policy)
	var deployment struct {
		Spec struct {
			Template struct {
				Metadata struct{ Labels map[string]string }
			}
		}
	}
	decode(t, "deploy/kubernetes/deployment.yaml", &deployment)
	labels := policy.Spec.PodSelector.MatchLabels
	if policy.Kind != "NetworkPolicy" || !slices.Equal(policy.Spec.PolicyTypes, []string{"Ingress"}) || len(labels) == 0 ||
		!maps.Equal(labels, deployment.Spec.Template.Metadata.Labels) {
		t.Errorf("the policy %+v is not about what connects to the pods", policy)
	}
	if len(policy.Spec.Ingress) != 2 {
		t.Fatalf("%d rules, want one for each port", len(policy.Spec.Ingress))
	}
	ports := map[string]int{}
	for _, p := range find(t, theDeployment(t).InitContainers, "keyturn").Ports {
		ports[p.Name] = p.ContainerPort
	}
	public, status := policy.Spec.Ingress[0], policy.Spec.Ingress[1]
	if len(public.From) != 0 || len(public.Ports) != 1 || public.Ports[0].Protocol != "TCP" || public.Ports[0].Port != ports["public"] {
		t.Errorf("to the key set: %+v", public)
	}
	if len(status.From) != 1 || len(status.From[0].NamespaceSelector.MatchLabels) == 0 ||
		len(status.Ports) != 1 || status.Ports[0].Protocol != "TCP" || status.Ports[0].Port != ports["status"] {
		t.Errorf("to health and metrics: %+v", status)
	}
}

// TestKustomization: what it lists is there, and every volume has its source.
func TestKustomization(t *testing.T) {
	var k struct {
		Resources          []string
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
		Images []struct{ Name string }
	}
	decode(t, "deploy/kubernetes/kustomization.yaml", &k)
	listed := append(k.Resources, k.ConfigMapGenerator[0].Files...)
	for _, file := range listed {
		read(t, path.Join("deploy/kubernetes", file))
	}
	there, err := os.ReadDir(path.Join(root, "deploy/kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range there {
		if f.Name() != "kustomization.yaml" && !slices.Contains(listed, f.Name()) {
			t.Errorf("%s is applied by nobody", f.Name())
		}
	}
	comment := read(t, "deploy/kubernetes/kustomization.yaml")
	for _, v := range theDeployment(t).Volumes {
		switch {
		case v.ConfigMap.Name != "" && v.ConfigMap.Name != k.ConfigMapGenerator[0].Name:
			t.Errorf("volume %s: nobody makes the ConfigMap %s", v.Name, v.ConfigMap.Name)
		case v.Secret.SecretName != "" && !strings.Contains(comment, " "+v.Secret.SecretName+" "):
			t.Errorf("volume %s: the kustomization does not say how to make the Secret %s", v.Name, v.Secret.SecretName)
		case v.ConfigMap.Name == "" && v.Secret.SecretName == "" && v.EmptyDir == nil:
			t.Errorf("volume %s has no source", v.Name)
		}
	}
}
