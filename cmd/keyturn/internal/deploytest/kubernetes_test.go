package deploytest

import (
	"errors"
	"io"
	"net"
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
	if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("pod: %+v", s)
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
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
	for _, file := range append(k.Resources, k.ConfigMapGenerator[0].Files...) {
		read(t, path.Join("deploy/kubernetes", file))
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
