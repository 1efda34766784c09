//! SNS and SQS as somebody else uses them: the SDK, without Caudal.

use std::collections::HashMap;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sns::config::Credentials;
use aws_sdk_sqs::types::QueueAttributeName;
use caudal_core::topic::TopicName;

#[derive(Clone)]
pub(crate) struct Client {
    endpoint: String,
    fifo: bool,
}

impl Client {
    /// Of the `broker.url` of an emulator.
    pub(crate) fn of(url: &str) -> Self {
        let endpoint = url.split("endpoint=").nth(1).unwrap().split('&').next().unwrap();
        Self { endpoint: endpoint.to_owned(), fifo: url.contains("fifo=true") }
    }

    async fn config(&self) -> aws_config::SdkConfig {
        let loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new("us-east-1"));
        let any = Credentials::new("test", "test", None, None, "test");
        loader.credentials_provider(any).endpoint_url(&self.endpoint).load().await
    }

    pub(crate) async fn sns(&self) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.config().await)
    }

    pub(crate) async fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.config().await)
    }

    /// The topic that Caudal made for this name.
    pub(crate) async fn topic_arn(&self, topic: &TopicName) -> String {
        let end = if self.fifo { ".fifo" } else { "" };
        let name = format!(":caudal-{}{end}", topic.as_str().replace('.', "X2E"));
        let mut pages = self.sns().await.list_topics().into_paginator().items().send();
        while let Some(found) = pages.next().await {
            let arn = found.unwrap().topic_arn.unwrap();
            if arn.ends_with(&name) {
                return arn;
            }
        }
        panic!("there is no topic {name}");
    }

    /// Publishes to SNS as a producer does that never heard of Caudal; returns the MessageId.
    pub(crate) async fn publish(&self, topic: &TopicName, headers: Vec<(String, String)>, body: &[u8]) -> String {
        let arn = self.topic_arn(topic).await;
        let text = String::from_utf8(body.to_vec()).unwrap();
        let mut publish = self.sns().await.publish().topic_arn(arn).message(text);
        for (name, value) in headers {
            let value = aws_sdk_sns::types::MessageAttributeValue::builder().data_type("String").string_value(value);
            publish = publish.message_attributes(name, value.build().unwrap());
        }
        if self.fifo {
            publish = publish.message_group_id("one").message_deduplication_id(uuid::Uuid::now_v7().to_string());
        }
        publish.send().await.unwrap().message_id.unwrap()
    }

    /// Sends straight to a queue.
    pub(crate) async fn send(&self, queue: &str, body: &str) {
        let url = self.queue_url(queue).await;
        self.sqs().await.send_message().queue_url(url).message_body(body).send().await.unwrap();
    }

    pub(crate) async fn create_queue(&self, name: &str) -> String {
        self.sqs().await.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
    }

    pub(crate) async fn set(&self, queue_url: &str, name: QueueAttributeName, value: &str) {
        let set = self.sqs().await.set_queue_attributes().queue_url(queue_url).attributes(name, value);
        set.send().await.unwrap();
    }

    pub(crate) async fn subscribe(&self, topic: &TopicName, queue: &str) {
        let endpoint = self.queue_attributes(queue).await[&QueueAttributeName::QueueArn].clone();
        let subscribe = self.sns().await.subscribe().topic_arn(self.topic_arn(topic).await).protocol("sqs");
        subscribe.endpoint(endpoint).send().await.unwrap();
    }

    /// Takes the envelope off what a subscription gets.
    pub(crate) async fn deliver_raw(&self, topic: &TopicName, queue: &str) {
        let endpoint = self.queue_attributes(queue).await[&QueueAttributeName::QueueArn].clone();
        let sns = self.sns().await;
        let subscriptions =
            sns.list_subscriptions_by_topic().topic_arn(self.topic_arn(topic).await).send().await.unwrap();
        let of = |s: &&aws_sdk_sns::types::Subscription| s.endpoint.as_deref() == Some(&endpoint);
        let arn = subscriptions.subscriptions().iter().find(of).unwrap().subscription_arn.clone();
        let set = sns.set_subscription_attributes().set_subscription_arn(arn);
        set.attribute_name("RawMessageDelivery").attribute_value("true").send().await.unwrap();
    }

    pub(crate) async fn queue_url(&self, name: &str) -> String {
        self.sqs().await.get_queue_url().queue_name(name).send().await.unwrap().queue_url.unwrap()
    }

    pub(crate) async fn queue_attributes(&self, name: &str) -> HashMap<QueueAttributeName, String> {
        let url = self.queue_url(name).await;
        let asked = self.sqs().await.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        asked.send().await.unwrap().attributes.unwrap()
    }
}
