//! What commands ask of the agent.

use matcher_common::abi::Setting;
use tokio::{sync::oneshot, task::JoinError};

use super::{Agent, GivenVerdict, Load, NextLoad, feeds, flow::Excluded, log};
use crate::{
    control::{Request, server::Asked},
    fetch::plan::Asker,
    instance::{
        Answer, ConsentAction, Instance, InstanceError, LoadedIndicators, Quiet, chosen_interfaces,
        parse_sources,
    },
    kernel::ring::Ring,
    verdicts::AskedVerdict,
};

impl Agent {
    pub(super) fn answer(&mut self, asked: Asked, ring: &mut Ring) -> Result<(), InstanceError> {
        let Asked { request, reply } = asked;
        let mut answer = Answer::default();
        let done = match request {
            // Answered when the load is done.
            Request::Load { feeds, fetch } => match self.renew_consent() {
                Ok(consent) => {
                    let asker = if fetch {
                        Asker::Person
                    } else {
                        Asker::Schedule
                    };
                    return self.begin_load(feeds, Some(asker), consent, Some(reply));
                }
                Err(error) => Err(error),
            },
            // Answered when it is in force.
            Request::Verdict(asked) => {
                self.begin_verdict(asked, reply);
                return Ok(());
            }
            // Answered when it came through.
            Request::Canary { json } => {
                self.canary_asked(json, reply);
                return Ok(());
            }
            Request::Ping | Request::Tail { .. } => Ok(()),
            Request::Status { json } => self.status(json, &mut answer),
            Request::Attach { interfaces, mode } => {
                self.attach(&interfaces, mode.as_deref(), &mut answer)
            }
            Request::Consent(action) => self.consent(&action, &mut answer),
            Request::StopMatching { resume } => {
                self.instance
                    .stop_matching(&mut self.tables, resume, &mut answer)
            }
            Request::Detach => self.detach(ring, &mut answer),
        };
        if let Err(error) = done {
            answer.problem(format!("error: {error}"));
            answer.exit = error.exit_code();
        }
        // The asker may have gone.
        let _ = reply.send(answer);
        Ok(())
    }

    fn status(&mut self, json: bool, answer: &mut Answer) -> Result<(), InstanceError> {
        let mut status = self.instance.status(&self.tables, true)?;
        status.canary = self.canary_status();
        if json {
            answer.say(serde_json::to_string(&status).unwrap_or_default());
        } else {
            answer.out.push_str(&status.text());
        }
        Ok(())
    }

    fn attach(
        &mut self,
        interfaces: &[String],
        mode: Option<&str>,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        let interfaces = chosen_interfaces(&self.instance.config()?.interfaces, interfaces, mode)?;
        self.instance.attach(&interfaces, answer)
    }

    fn consent(
        &mut self,
        action: &ConsentAction,
        answer: &mut Answer,
    ) -> Result<(), InstanceError> {
        if let Some(applied) = self.instance.consent(&mut self.lists, action, answer)? {
            self.consent = applied;
            self.forget_refusing()?;
        }
        Ok(())
    }

    /// Detaches first, so that no hit comes after the last drain.
    fn detach(&mut self, ring: &mut Ring, answer: &mut Answer) -> Result<(), InstanceError> {
        for ifindex in self.instance.pins().attached()? {
            self.tables.remove_interface(ifindex)?;
        }
        while self.flow.drain(ring, &self.consent.table)? {}
        self.sweep()?;
        while self.flow.drain(ring, &self.consent.table)? {}
        self.instance.detach(answer)?;
        answer.say("the agent ends");
        self.leaving = true;
        Ok(())
    }

    /// The first load, unless there is nothing to load before the first fetch.
    pub(super) fn begin_first_load(&mut self) -> Result<(), InstanceError> {
        let config = self.instance.config()?;
        // What is in force passes the guards of today in any case.
        let in_force = self.tables.setting(Setting::Generation)? > 0;
        if in_force || feeds::anything_there(&config.feeds) {
            return self.begin_load(Vec::new(), None, Answer::default(), None);
        }
        tracing::info!("no feed was ever fetched; nothing is matched until one is");
        Ok(())
    }

    /// Fetches what is due, and loads what is new.
    pub(super) fn keep_feeds(&mut self) -> Result<(), InstanceError> {
        let config = self.instance.config()?;
        if self.feeds.tick(&self.instance, config) && self.load.is_none() {
            return self.begin_load(Vec::new(), None, Answer::default(), None);
        }
        Ok(())
    }

    /// Begins to load feeds beside the drain; `reply` gets the answer, which
    /// begins with `answer`. Without feeds the configured ones are loaded, and
    /// `fetch` says who wants those fetched that are due.
    pub(super) fn begin_load(
        &mut self,
        feeds: Vec<String>,
        fetch: Option<Asker>,
        mut answer: Answer,
        reply: Option<oneshot::Sender<Answer>>,
    ) -> Result<(), InstanceError> {
        if let Some(load) = &self.load {
            let Some(reply) = reply else {
                self.feeds.want_load();
                return Ok(());
            };
            // Nobody asked for the one under way: a command waits for it.
            if load.reply.is_none() && self.next_load.is_none() {
                self.next_load = Some(NextLoad {
                    feeds,
                    fetch,
                    answer,
                    reply,
                });
                return Ok(());
            }
            let busy = Answer {
                err: "error: feeds are being loaded already; try again in a moment\n".into(),
                exit: 1,
                ..Answer::default()
            };
            // The asker may have gone.
            let _ = reply.send(busy);
            return Ok(());
        }
        if feeds.is_empty() {
            self.feeds.load_begins(self.instance.config()?);
        }
        let instance = self.instance.clone();
        let task = tokio::task::spawn_blocking(move || {
            match load(&instance, &feeds, fetch, &mut answer) {
                Ok(loaded) => (answer, Some(loaded)),
                Err(error) => {
                    answer.problem(format!("error: {error}"));
                    answer.exit = error.exit_code();
                    (answer, None)
                }
            }
        });
        self.load = Some(Load { task, reply });
        Ok(())
    }

    /// Begins to record a verdict beside the drain: it waits for a load that is
    /// under way.
    fn begin_verdict(&mut self, asked: AskedVerdict, reply: oneshot::Sender<Answer>) {
        let instance = self.instance.clone();
        self.verdicts.spawn_blocking(move || {
            let mut answer = Answer::default();
            let verdicts = match instance.give_verdict(&asked, &mut answer) {
                Ok(verdicts) => Some(verdicts),
                Err(error) => {
                    answer.problem(format!("error: {error}"));
                    answer.exit = error.exit_code();
                    None
                }
            };
            GivenVerdict {
                answer,
                verdicts,
                reply,
            }
        });
    }

    /// Withdraws what rests on a false positive, then answers.
    pub(super) fn finish_verdict(
        &mut self,
        given: Result<GivenVerdict, JoinError>,
    ) -> Result<(), InstanceError> {
        let GivenVerdict {
            mut answer,
            verdicts,
            reply,
        } = match given {
            Ok(given) => given,
            // The asker sees the connection close.
            Err(error) => {
                tracing::error!("recording a verdict ended early: {error}");
                return Ok(());
            }
        };
        if let Some(verdicts) = verdicts {
            let excluded = Excluded {
                refuted: verdicts.refuted(),
                ..self.flow.excluded().clone()
            };
            self.exclude(excluded, &mut answer)?;
        }
        log(&answer);
        // The asker may have gone.
        let _ = reply.send(answer);
        Ok(())
    }

    fn exclude(&mut self, excluded: Excluded, answer: &mut Answer) -> Result<(), InstanceError> {
        if let Some(text) = self.flow.exclude(excluded)? {
            answer.say(text);
        }
        self.flow.publish(false)
    }

    /// Takes up what a load has put in force.
    pub(super) fn finish_load(
        &mut self,
        (mut answer, loaded): (Answer, Option<LoadedIndicators>),
    ) -> Result<(), InstanceError> {
        if let Some(loaded) = loaded {
            self.flow.set_catalog(loaded.catalog);
            let excluded = Excluded {
                refuted: loaded.verdicts.refuted(),
                never_matched: loaded.never_matched,
            };
            self.exclude(excluded, &mut answer)?;
        }
        self.instance.warn_if_closed(&self.tables, &mut answer)?;
        log(&answer);
        if let Some(reply) = self.load.take().and_then(|load| load.reply) {
            // The asker may have gone.
            let _ = reply.send(answer);
        }
        match self.next_load.take() {
            Some(next) => self.begin_load(next.feeds, next.fetch, next.answer, Some(next.reply)),
            None => Ok(()),
        }
    }
}

fn load(
    instance: &Instance,
    feeds: &[String],
    fetch: Option<Asker>,
    answer: &mut Answer,
) -> Result<LoadedIndicators, InstanceError> {
    let sources = if feeds.is_empty() {
        instance.config()?.feeds.clone()
    } else {
        parse_sources(feeds)?
    };
    if let Some(asker) = fetch {
        instance.fetch_due(&sources, asker, answer, &Quiet);
    }
    instance.load(&mut instance.tables()?, &sources, answer, &Quiet)
}
