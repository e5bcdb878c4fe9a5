// The oracle: kube-scheduler 1.37.2's own plugins, run on clusters that exist only in memory.
//
// It reads JSON documents from standard input and writes one line of JSON for each. A document is a
// whole cluster with one pod to place (see document in documents.go); with --requests it is a single
// pod, and only its resource requests are computed, which is a thousand times cheaper; with --profiles
// it is a configuration file, and only the plugins of its profiles are listed.
//
// Nothing of the scheduler is re-implemented here: answers come from the plugins themselves, from
// SchedulePod and from NodeInfo.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	v1 "k8s.io/api/core/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
)

func main() {
	klog.InitFlags(nil)
	gates := flag.String("feature-gates", "", "A=true,B=false; Kubernetes' defaults otherwise")
	requestsOnly := flag.Bool("requests", false, "documents are pods; print their requests only")
	profilesOnly := flag.Bool("profiles", false, "documents are KubeSchedulerConfigurations; print what profiles run")
	strict := flag.Bool("validate", false, "refuse objects that the API server would refuse")
	flag.Parse()
	if err := serve(*gates, *requestsOnly, *profilesOnly, *strict); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func serve(gates string, requestsOnly, profilesOnly, strict bool) error {
	if gates != "" {
		if err := utilfeature.DefaultMutableFeatureGate.Set(gates); err != nil {
			return err
		}
	}
	if profilesOnly {
		return eachDocument(judgeProfiles)
	}
	if !requestsOnly {
		return eachDocument(func(doc *document) any {
			if strict {
				if err := validate(doc); err != nil {
					return &verdict{Name: doc.Name, Error: err.Error()}
				}
			}
			return judge(doc)
		})
	}
	counter, err := newRequestCounter()
	if err != nil {
		return err
	}
	return eachDocument(func(pod *v1.Pod) any {
		if strict {
			if err := validatePod(pod); err != nil {
				return &podRequests{Error: err.Error()}
			}
		}
		return counter.count(pod)
	})
}

// eachDocument answers one line per document, at once, so that a caller can ask and listen in turn.
func eachDocument[D any](answer func(*D) any) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		doc := new(D)
		if err := in.Decode(doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(answer(doc)); err != nil {
			return err
		}
	}
}
