// netd is the network of pods in a kind cluster whose node image was built here, where kind's own images
// have kindnet. On each node (a DaemonSet on the host's network) it
//
//   - writes the configuration of the CNI plugins ptp, host-local and portmap, from the node's podCIDR;
//   - keeps one route for each other node: its podCIDR by way of its InternalIP.
//
// It asks for the nodes every two seconds, with nothing but the standard library: client-go would be
// forty times its size. It goes by its own ServiceAccount since a kubelet may read only its own Node.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	account       = "/var/run/secrets/kubernetes.io/serviceaccount/"
	cniFolder     = "/etc/cni/net.d"
	cniFile       = "10-netd.conflist"
	interval      = 2 * time.Second
	answerTimeout = 5 * time.Second
)

const cniConfig = `{
  "cniVersion": "0.4.0",
  "name": "netd",
  "plugins": [
    {"type": "ptp", "ipMasq": false, "mtu": 1500,
     "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
              "routes": [{"dst": "0.0.0.0/0"}],
              "ranges": [[{"subnet": %q}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ PodCIDR string }
		Status   struct {
			Addresses []struct{ Type, Address string }
		}
	}
}

type agent struct {
	client *http.Client
	server string
	node   string
	cidr   string            // what the CNI configuration was last written for
	routes map[string]string // podCIDR → the node's address
}

func main() {
	log.SetFlags(log.Ltime)
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	a := &agent{
		client: &http.Client{Timeout: answerTimeout, Transport: transport},
		// kind sets it in the manifest: Services do not work before there is a network.
		server: os.Getenv("CONTROL_PLANE_ENDPOINT"),
		node:   os.Getenv("NODE_NAME"),
		routes: map[string]string{},
	}
	if a.server == "" {
		a.server = net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	for ; ; time.Sleep(interval) {
		if err := a.step(); err != nil {
			log.Print(err)
		}
	}
}

func (a *agent) step() error {
	nodes, err := a.nodes()
	if err != nil {
		return err
	}
	for _, node := range nodes.Items {
		cidr := node.Spec.PodCIDR
		if cidr == "" {
			continue
		}
		if node.Metadata.Name == a.node {
			if err := a.configure(cidr); err != nil {
				return err
			}
			continue
		}
		for _, address := range node.Status.Addresses {
			if address.Type == "InternalIP" && net.ParseIP(address.Address).To4() != nil {
				if err := a.route(cidr, address.Address); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *agent) nodes() (*nodeList, error) {
	// Read each time: the kubelet replaces it before it expires.
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, "https://"+a.server+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	answer, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("nodes: %s", answer.Status)
	}
	nodes := &nodeList{}
	return nodes, json.NewDecoder(answer.Body).Decode(nodes)
}

// configure makes the node ready for pods; containerd sees the file when it is whole.
func (a *agent) configure(cidr string) error {
	if a.cidr == cidr {
		return nil
	}
	draft := filepath.Join(cniFolder, "."+cniFile)
	if err := os.WriteFile(draft, []byte(fmt.Sprintf(cniConfig, cidr)), 0o644); err != nil {
		return err
	}
	if err := os.Rename(draft, filepath.Join(cniFolder, cniFile)); err != nil {
		return err
	}
	a.cidr = cidr
	log.Printf("pods of this node: %s", cidr)
	return nil
}

func (a *agent) route(cidr, by string) error {
	if a.routes[cidr] == by {
		return nil
	}
	_, destination, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: destination, Gw: net.ParseIP(by)}); err != nil {
		return fmt.Errorf("route %s by way of %s: %w", cidr, by, err)
	}
	a.routes[cidr] = by
	log.Printf("route %s by way of %s", cidr, by)
	return nil
}
