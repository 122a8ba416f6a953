//! What commands ask of the agent.

use tokio::{sync::oneshot, task::JoinError};

use super::{Agent, GivenVerdict, Load, log};
use crate::{
    control::{Request, server::Asked},
    instance::{
        Answer, ConsentAction, Instance, InstanceError, LoadedIndicators, chosen_interfaces,
        parse_sources,
    },
    kernel::ring::Ring,
    verdicts::{AskedVerdict, Verdicts},
};

impl Agent {
    pub(super) fn answer(&mut self, asked: Asked, ring: &mut Ring) -> Result<(), InstanceError> {
        let Asked { request, reply } = asked;
        let mut answer = Answer::default();
        let done = match request {
            // Answered when the load is done.
            Request::Load { feeds } => match self.renew_consent() {
                Ok(consent) => {
                    self.begin_load(feeds, consent, Some(reply));
                    return Ok(());
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
        self.instance.detach(answer)?;
        answer.say("the agent ends");
        self.leaving = true;
        Ok(())
    }

    /// Begins to load feeds beside the drain; `reply` gets the answer, which
    /// begins with `answer`.
    pub(super) fn begin_load(
        &mut self,
        feeds: Vec<String>,
        mut answer: Answer,
        reply: Option<oneshot::Sender<Answer>>,
    ) {
        if self.load.is_some() {
            if let Some(reply) = reply {
                let busy = Answer {
                    err: "error: feeds are being loaded already; try again in a moment\n".into(),
                    exit: 1,
                    ..Answer::default()
                };
                // The asker may have gone.
                let _ = reply.send(busy);
            }
            return;
        }
        let instance = self.instance.clone();
        let task =
            tokio::task::spawn_blocking(move || match load(&instance, &feeds, &mut answer) {
                Ok(loaded) => (answer, Some(loaded)),
                Err(error) => {
                    answer.problem(format!("error: {error}"));
                    answer.exit = error.exit_code();
                    (answer, None)
                }
            });
        self.load = Some(Load { task, reply });
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
            self.take_up(&verdicts, &mut answer)?;
        }
        log(&answer);
        // The asker may have gone.
        let _ = reply.send(answer);
        Ok(())
    }

    fn take_up(&mut self, verdicts: &Verdicts, answer: &mut Answer) -> Result<(), InstanceError> {
        let done = self.flow.take_up(verdicts, false)?;
        if let Some(text) = done.text() {
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
            self.take_up(&loaded.verdicts, &mut answer)?;
        }
        self.instance.warn_if_closed(&self.tables, &mut answer)?;
        log(&answer);
        if let Some(reply) = self.load.take().and_then(|load| load.reply) {
            // The asker may have gone.
            let _ = reply.send(answer);
        }
        Ok(())
    }
}

fn load(
    instance: &Instance,
    feeds: &[String],
    answer: &mut Answer,
) -> Result<LoadedIndicators, InstanceError> {
    let sources = if feeds.is_empty() {
        instance.config()?.feeds.clone()
    } else {
        parse_sources(feeds)?
    };
    instance.load(&mut instance.tables()?, &sources, answer)
}
